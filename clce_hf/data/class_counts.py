"""How many images there are of each class, in numbers and in words."""

from typing import cast

from datasets import Dataset
from torch import Tensor

from clce_hf.data.labels import read_labels
from clce_hf.errors import abbreviate


def class_counts(dataset: Dataset) -> dict[str, int]:
    """Return the number of images of each class by its name, in the order of ids.

    Args:
        dataset: with a column `labels` of ids of named classes.
    """
    names = dataset.features["labels"].names
    labels = cast(Tensor, read_labels(dataset))
    return dict(zip(names, labels.bincount(minlength=len(names)).tolist(), strict=True))


def describe(dataset: Dataset) -> str:
    """Return a line such as `40 images of 2 classes: ant 30, bee 10`.

    Args:
        dataset: with a column `labels` of ids of named classes.
    """
    counts = class_counts(dataset)
    found = {name: count for name, count in counts.items() if count}
    sizes = f"{min(found.values()):,} to {max(found.values()):,} each: " if len(found) > 10 else ""
    words = [f"{name} {count:,}" for name, count in found.items()]
    absent = [name for name, count in counts.items() if not count]
    line = f"{len(dataset):,} images of {len(found):,} classes: {sizes}{abbreviate(words)}"
    return line + (f"; none of {abbreviate(absent)}" if absent else "")
