"""Data sets of the same schemas as those of the benchmarks, to be put on the Hub of the tests."""

import functools
import io
import json

import datasets
import numpy as np
from datasets import ClassLabel, Features, Image, Sequence, Value
from PIL import Image as PILImage

from clce_hf.data.presets import PRESETS


def picture(number):
    """The bytes of an image whose color is the number of its class."""
    file = io.BytesIO()
    PILImage.new("RGB", (2, 2), (number // 256, number % 256, 0)).save(file, "PNG")
    return file.getvalue()


def number_of(image):
    high, low, _ = image.getpixel((0, 0))
    return 256 * high + low


def rows(numbers, **columns):
    """Columns of images, in a mixed order: pictures for None, else a function of the class."""
    mixed = np.random.default_rng(0).permutation(numbers).tolist()
    pictures = {number: {"bytes": picture(number), "path": None} for number in set(numbers)}
    return {
        name: [pictures[n] if value is None else value(n) for n in mixed]
        for name, value in columns.items()
    }


def names(count, name="class {}"):
    return ClassLabel(names=[name.format(i) for i in range(count)])


def cifar100():
    features = Features({"img": Image(), "fine_label": names(100), "coarse_label": names(20, "{}")})
    columns = {"img": None, "fine_label": lambda n: n, "coarse_label": lambda n: n // 5}
    configs = []
    for config in ("cifar100", "other"):  # so that the one to load has to be said
        files = [{"split": split, "path": f"{config}/{split}-*"} for split in ("train", "test")]
        configs.append({"config_name": config, "data_files": files})
    for split in ("train", "test"):
        content = rows(range(100), **columns)
        yield f"cifar100/{split}-00000-of-00001.parquet", features, content
    yield "README.md", None, f"---\nconfigs: {json.dumps(configs)}\n---\n"


def plain(classes, *splits, label=None, **more):
    """Columns `image` and `label`, of these classes in each split, and more of them."""
    features = {"image": Image(), "label": label or names(classes)}
    features |= {name: feature for name, (feature, _) in more.items()}
    columns = {"image": None, "label": lambda n: n, **{n: value for n, (_, value) in more.items()}}
    for split in splits:
        content = rows([*range(classes)] * (2 if split == "train" else 1), **columns)
        yield f"data/{split}-00000-of-00001.parquet", Features(features), content


def caltech256():
    """Labels count from 1, and names stand beside them."""
    features = Features({"image": Image(), "label": Value("int64"), "text": Value("string")})
    columns = {"image": None, "label": lambda n: n + 1, "text": lambda n: f"class {n:03}"}
    for split in ("train", "test", "validation"):
        content = rows(range(257), **columns)
        yield f"data/{split}-00000-of-00001.parquet", features, content


def imagenet():
    yield from plain(1_000, "train", "validation")
    unlabeled = rows([0, 1, 2], image=None, label=lambda n: -1)
    features = Features({"image": Image(), "label": names(1_000)})
    yield "data/test-00000-of-00001.parquet", features, unlabeled


def mini_imagenet():
    """Plain integers, 0 to 99 over the splits."""
    features = Features({"image": Image(), "label": Value("int64")})
    for split, ids in (
        ("train", range(64)),
        ("validation", range(64, 80)),
        ("test", range(80, 100)),
    ):
        content = rows([*ids] * 2, image=None, label=lambda n: n)
        yield f"data/{split}-00000-of-00001.parquet", features, content


SCHEMAS = {
    "uoft-cs/cifar100": cifar100,
    "bentrevett/caltech-ucsd-birds-200-2011": lambda: plain(
        200, "train", "test", bbox=(Sequence(Value("float32")), lambda n: [0.0] * 4)
    ),
    "ilee0022/Caltech-256": caltech256,
    "dpdl-benchmark/oxford_flowers102": lambda: plain(102, "train", "validation", "test"),
    "timm/oxford-iiit-pet": lambda: plain(
        37,
        "train",
        "test",
        image_id=(Value("string"), str),
        label_cat_dog=(ClassLabel(names=["cat", "dog"]), lambda n: n % 2),
    ),
    "ILSVRC/imagenet-1k": imagenet,
    "GATE-engine/mini_imagenet": mini_imagenet,
}


@functools.cache
def files_of(dataset):
    """The files of a data set of the schema, by name."""
    files = {}
    for file, features, content in SCHEMAS[dataset]():
        if features is None:
            files[file] = content.encode()
            continue
        buffer = io.BytesIO()
        datasets.Dataset.from_dict(content, features=features).to_parquet(buffer)
        files[file] = buffer.getvalue()
    return files


GATED = {"ILSVRC/imagenet-1k"}


def publish(hub, name):
    """Put a data set of the schema on the Hub, at the preset's commit alone."""
    source = PRESETS[name].source
    is_gated = source.name in GATED
    repository = hub.create(source.name, "dataset")
    repository.gated = is_gated
    repository.branches[source.revision or "main"] = files_of(source.name)
    return f"hf_{repository.owner}" if is_gated else None
