"""Bring splits of any source to the columns `image` and `labels`, the classes numbered from 0."""

import numpy as np
from datasets import ClassLabel, Dataset, Image, Value

from clce_hf.errors import ArgumentError, abbreviate


def standard_columns(dataset: Dataset, image_column: str, label_column: str) -> Dataset:
    """Keep the images and labels alone, as `image` and `labels`.

    Raises:
        ArgumentError: if a column is missing.
    """
    for argument, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in dataset.column_names:
            raise ArgumentError(
                argument,
                f"{argument.replace('_', ' ')} {column!r}: the data set has no such column; it "
                f"has {', '.join(dataset.column_names)}.",
            )
    columns = {image_column: "image", label_column: "labels"}
    dataset = dataset.select_columns(list(columns))
    dataset = dataset.rename_columns({name: new for name, new in columns.items() if name != new})
    if not isinstance(dataset.features["image"], Image):
        dataset = dataset.cast_column("image", Image())
    return dataset


def number_classes(splits: dict[str, Dataset], label_column: str) -> dict[str, Dataset]:
    """Turn labels into ids of the classes of the first split, the training images.

    Encoding each split by its own classes would number them differently where one lacks a class.
    Labels that are ids of named classes stay.

    Args:
        splits: by name, with columns `image` and `labels`.
        label_column: what the labels were called, for the errors.

    Raises:
        ArgumentError: if an image has no label, or the labels are not one class per image.
        ValueError: if an image has a class that the first split lacks.
    """
    first, *others = splits
    feature = splits[first].features["labels"]
    if not isinstance(feature, ClassLabel | Value):
        raise ArgumentError(
            "label_column",
            f"label column {label_column!r}: one class per image is needed, but it holds "
            f"{feature}.",
        )
    class_name = feature.int2str if isinstance(feature, ClassLabel) else str
    classes: dict[str, set] = {name: set(split.unique("labels")) for name, split in splits.items()}
    # -1 is how data sets of the Hub hide a test label.
    absent = {None, -1} if isinstance(feature, ClassLabel) else {None}
    if any(values & absent for values in classes.values()):
        raise ArgumentError(
            "label_column", f"label column {label_column!r}: some images have no label."
        )
    for name in others:
        if unseen := classes[name] - classes[first]:
            words = [str(class_name(value)) for value in sorted(unseen)]
            raise ValueError(
                f"The {name} images have classes without training images: "
                f"{abbreviate(words)}. Give these classes training images, or take their images "
                f"out of {name!r}."
            )
    if isinstance(feature, ClassLabel):
        return splits
    ids = {value: i for i, value in enumerate(sorted(classes[first]))}
    encoded = ClassLabel(names=[str(value) for value in ids])
    return {
        name: split.select_columns("image").add_column(
            "labels", [ids[value] for value in split["labels"]], feature=encoded
        )
        for name, split in splits.items()
    }


def select_classes(dataset: Dataset, ids: np.ndarray, wanted: tuple[int, ...]) -> Dataset:
    """Select the rows whose id is wanted, and number their classes anew, in the old order.

    Args:
        dataset: with columns `image` and `labels`, of class ids.
        ids: integers, shape (n,), to select by: the labels, or another column.
        wanted: the ids to select.

    Raises:
        ValueError: if no row has such an id.
    """
    labels = column_values(dataset, "labels")
    mask = np.isin(ids, wanted)
    classes = np.unique(labels[mask])
    if len(classes) == 0:
        raise ValueError(f"None of the images is of the classes {list(wanted)}.")
    names = dataset.features["labels"].int2str(classes.tolist())
    # Numbered before rows are taken away: afterwards, a new column would copy the images.
    numbered = np.where(mask, np.searchsorted(classes, labels), -1)
    dataset = dataset.select_columns("image").add_column(
        "labels", numbered, feature=ClassLabel(names=names)
    )
    return dataset.select(np.flatnonzero(mask))


def column_values(dataset: Dataset, name: str) -> np.ndarray:
    """Return a column of numbers, shape (n,), without decoding images."""
    return dataset.with_format("arrow").select_columns(name)[:].column(name).to_numpy()
