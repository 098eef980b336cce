"""The data set that needs no download: scikit-learn's handwritten digits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as PILImage

from clce_hf.data.sources import Source

TEST_IMAGES = 500


@dataclass(frozen=True)
class Digits(Source):
    """1,297 training and 500 test images of 8 x 8 pixels in 10 classes, always the same."""

    def load(self, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
        """Return `train` and `test`.

        Raises:
            ModuleNotFoundError: if scikit-learn is not installed.
        """
        try:
            from sklearn.datasets import load_digits
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'The bundled digits come with scikit-learn: pip install "clce_hf[demo]".'
            ) from error
        digits: Any = load_digits()
        levels = (digits.images * (255 / 16)).astype(np.uint8)
        features = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))})
        dataset = Dataset.from_dict(
            {"image": [PILImage.fromarray(image) for image in levels], "label": digits.target},
            features=features,
        )
        return dataset.train_test_split(TEST_IMAGES, seed=0, stratify_by_column="label")
