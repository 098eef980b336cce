"""How many images there are of each class, in numbers and in words."""

from collections.abc import Sequence
from typing import Any, cast

from datasets import Dataset
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers.trainer_utils import has_length

from clce_hf.data.labels import find_labels, read_labels
from clce_hf.errors import abbreviate
from clce_hf.loss.targets import is_labeled


def label_counts(dataset: Any, num_classes: int, label_names: Sequence[str] = ()) -> Tensor:
    """Return the number of images of each class, without decoding an image.

    Args:
        dataset: whose labels can be read, as `samples_per_class` reads them. Images
            labeled -100 are left out.
        num_classes: of the model.
        label_names: names of a column of labels, to look for before the usual ones.

    Returns:
        int64, shape (num_classes,).

    Raises:
        ValueError: if there are no labels to read, or one is neither in [0, num_classes) nor -100.
    """
    is_stream = isinstance(dataset, IterableDataset) or not has_length(dataset)
    found = None if is_stream else find_labels(dataset, label_names)
    if found is None:
        raise ValueError(
            f"The labels of a {type(dataset).__name__} cannot be read without its images: pass the "
            "number of images of each class as class_counts."
        )
    labels, source = found
    labels = labels[is_labeled(labels)]
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"The labels of {source} lie in [{labels.min()}, {labels.max()}], but a model of "
            f"{num_classes} classes knows those in [0, {num_classes - 1}], and -100 for images "
            "without a class: check num_classes, or set the data set's targets to the ids that "
            "its transform makes."
        )
    return labels.bincount(minlength=num_classes)


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
        dataset: with a column `labels` of ids of named classes, or without labels.
    """
    if "labels" not in dataset.column_names:
        return f"{len(dataset):,} images without labels"
    counts = class_counts(dataset)
    found = {name: count for name, count in counts.items() if count}
    words = [f"{name} {count:,}" for name, count in found.items()]
    absent = [name for name, count in counts.items() if not count]
    line = f"{len(dataset):,} images of {len(found):,} classes: {_sizes(found)}{abbreviate(words)}"
    return line + (f"; none of {abbreviate(absent)}" if absent else "")


def _sizes(found: dict[str, int]) -> str:
    """How many images classes have, where there are too many to list them all."""
    if len(found) <= 10:
        return ""
    least, most = min(found.values()), max(found.values())
    return f"{least:,} each: " if least == most else f"{least:,} to {most:,} each: "
