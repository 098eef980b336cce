import atexit
import contextlib
import gc
import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.hub_server import serving

# The Hub that the tests see is one on this machine, and what is kept of it a folder of their own.
# The client reads these when it is imported, so no import above may bring it.
_running = contextlib.ExitStack()
atexit.register(_running.close)
HUB = _running.enter_context(serving())
os.environ["HF_ENDPOINT"] = HUB.url
os.environ["HF_HOME"] = _running.enter_context(tempfile.TemporaryDirectory())
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(items):
    """Let the files that take long start first: a worker that got one last would end alone."""
    items.sort(key=lambda item: item.get_closest_marker("early") is None)


_modules_passed_over = 0


def _pass_over_modules():
    """Have the garbage collector pass over all that was imported, where much is new.

    Trainer collects garbage at the end of each training, which would take longer than the small
    trainings of the tests.
    """
    global _modules_passed_over
    if len(sys.modules) > _modules_passed_over + 50:
        gc.collect()
        gc.freeze()
        _modules_passed_over = len(sys.modules)


def pytest_collection_finish():
    _pass_over_modules()


def pytest_runtest_teardown():
    _pass_over_modules()


def pytest_sessionfinish():
    """Undo it: Hypothesis, in its summary, asks the collector for what it passes over."""
    gc.unfreeze()


@pytest.fixture
def hub():
    """The Hub, empty."""
    HUB.clear()
    return HUB


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """40 training and 20 validation images in four classes, told apart by their brightness."""
    from support.tiny import CLASSES

    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("validation", 5)):
        for i, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for j in range(count):
                noise = generator.integers(0, 40, (20, 24, 3)) + 50 * i
                Image.fromarray(noise.astype(np.uint8)).save(root / split / name / f"{j}.png")
    return root


@pytest.fixture
def published(hub):
    """A base model with a license, and photographs as Parquet files, on the Hub."""
    import datasets
    from support.pushing import PROCESSOR
    from support.tiny import CLASSES, vit

    base = hub.create("bob/base")
    model = vit()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        PROCESSOR.save_pretrained(folder)
        base.files.update({file.name: file.read_bytes() for file in Path(folder).iterdir()})
    base.files["README.md"] = b"---\nlicense: apache-2.0\n---\n# base\n"
    generator = np.random.default_rng(0)
    animals = hub.create("bob/animals", "dataset")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    for split, n in (("train", 16), ("test", 8)):
        pixels = generator.integers(0, 255, (n, 16, 16, 3), np.uint8)
        rows = {"image": [Image.fromarray(p) for p in pixels], "label": [i % 4 for i in range(n)]}
        files = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(files)
        animals.files[f"data/{split}-00000-of-00001.parquet"] = files.getvalue()
    return hub
