"""The data set and the model that need no download: scikit-learn's digits and a small ViT."""

from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
from transformers.modeling_utils import PreTrainedModel

IMAGE_SIZE = 8
TEST_IMAGES = 500


def load_digits_splits() -> tuple[Dataset, Dataset]:
    """Return 1,297 training and 500 test images of 8 x 8 pixels in 10 classes, always the same.

    Columns: `image` and `labels`.

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
    features = Features({"image": Image(), "labels": ClassLabel(names=list("0123456789"))})
    dataset = Dataset.from_dict(
        {"image": [PILImage.fromarray(image) for image in levels], "labels": digits.target},
        features=features,
    )
    splits = dataset.train_test_split(TEST_IMAGES, seed=0, stratify_by_column="labels")
    return splits["train"], splits["test"]


def small_vit(names: list[str]) -> tuple[PreTrainedModel, ViTImageProcessor]:
    """Return an untrained ViT of 0.14 M parameters for the digits, and its image processor."""
    labels: dict[str, Any] = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }
    config = ViTConfig(
        image_size=IMAGE_SIZE,
        patch_size=2,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        **labels,
    )
    processor = ViTImageProcessor(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
    return ViTForImageClassification(config), processor
