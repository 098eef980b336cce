import os

import numpy as np
import pytest
from PIL import Image

# Nothing here may reach out, and a download would hide that something is missing. The client reads
# this when it is imported, so no import above may bring it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """40 training and 20 validation images in four classes, told apart by their brightness."""
    from tiny import CLASSES

    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("validation", 5)):
        for i, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for j in range(count):
                noise = generator.integers(0, 40, (20, 24, 3)) + 50 * i
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{j}.png")
    return root
