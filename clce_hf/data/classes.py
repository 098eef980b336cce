"""Bring splits of any source to the columns `image` and `labels`, the classes numbered from 0."""

import unicodedata
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Value

from clce_hf.data.image_column import as_images
from clce_hf.errors import ArgumentError, abbreviate


def standard_columns(
    dataset: Dataset, image_column: str, label_column: str | None, split: str
) -> Dataset:
    """Keep the images and labels alone, as `image` and `labels`.

    Args:
        dataset: none of whose rows were selected yet.
        image_column: column of the images.
        label_column: column of the labels; None for images without labels.
        split: its name, for the errors.

    Raises:
        ArgumentError: if a column is missing, or does not hold images.
        ValueError: if a row has no image, or an array that is none.
    """
    for argument, column in (("image_column", image_column), ("label_column", label_column)):
        if column is not None and column not in dataset.column_names:
            message = (
                f"{argument.replace('_', ' ')} {column!r}: the data set has no such column; it "
                f"has {', '.join(dataset.column_names)}."
            )
            # What `datasets` makes of folders where some images lie in no class folder.
            if dataset.column_names == [image_column]:
                message += (
                    f" So the images of {split!r} have no labels: in a folder, all "
                    "lie in class folders at one depth, as SPLIT/CLASS/*.jpg. Move a split without "
                    "labels away."
                )
            raise ArgumentError(argument, message)
    columns = {image_column: "image"}
    if label_column is not None:
        columns[label_column] = "labels"
    dataset = dataset.select_columns(list(columns))
    dataset = dataset.rename_columns({name: new for name, new in columns.items() if name != new})
    return as_images(dataset, image_column, split)


def has_labels(dataset: Dataset, label_column: str) -> bool:
    """Whether there is such a column with a label in it that is not hidden."""
    feature = dataset.features.get(label_column)
    if not isinstance(feature, ClassLabel | Value):
        return feature is not None
    return not set(dataset.unique(label_column)) <= _hidden(feature)


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
    classes = {name: set(split.unique("labels")) for name, split in splits.items()}
    for name, values in classes.items():
        _check_labels(splits[name], name, values, label_column)
    name_of: Any = feature.int2str if isinstance(feature, ClassLabel) else str
    for name in others:
        if unseen := classes[name] - classes[first]:
            raise _without_training_images(
                name, [name_of(i) for i in sorted(unseen)], [name_of(i) for i in classes[first]]
            )
    if isinstance(feature, ClassLabel):
        return splits
    ids = {value: i for i, value in enumerate(sorted(classes[first]))}
    encoded = ClassLabel(names=[str(value) for value in ids])
    return {
        name: split.select_columns("image").add_column(
            "labels", [ids[value] for value in _labels(split)], feature=encoded
        )
        for name, split in splits.items()
    }


def _hidden(feature: Any) -> set[Any]:
    """Values that say that there is no label; -1 is how data sets of the Hub hide a test label."""
    return {None, -1} if isinstance(feature, ClassLabel) else {None}


def _check_labels(split: Dataset, name: str, values: set[Any], label_column: str) -> None:
    feature = split.features["labels"]
    hidden = _hidden(feature)
    if any(value in hidden or value != value for value in values):  # NaN
        numbered = enumerate(_labels(split))
        rows = [str(row) for row, value in numbered if value in hidden or value != value]
        raise ArgumentError(
            "label_column",
            f"label column {label_column!r}: some images have no label, {len(rows):,} of "
            f"{len(split):,} in {name!r}, those in the rows {abbreviate(rows)}.",
        )
    if isinstance(feature, ClassLabel) and max(values) >= len(feature.names):
        raise ArgumentError(
            "label_column",
            f"label column {label_column!r}: {name!r} has the label {max(values)}, but there are "
            f"names of {len(feature.names):,} classes, counted from 0.",
        )


def _without_training_images(name: str, unseen: list[str], trained: list[str]) -> ValueError:
    seen = {_written_alike(word): word for word in trained}
    words = [
        f"{word!r} (trained is {seen[_written_alike(word)]!r})"
        if _written_alike(word) in seen
        else word
        for word in unseen
    ]
    return ValueError(
        f"The {name} images have classes without training images: {abbreviate(words)}. Give these "
        f"classes training images, or take their images out of {name!r}."
    )


def _written_alike(name: str) -> str:
    """Return what names share that only differ in case, blanks or the form of Unicode."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _labels(split: Dataset) -> list:
    """Return labels of any type as a list; row by row, `datasets` takes minutes for a million."""
    return split.with_format("arrow").select_columns("labels")[:].column("labels").to_pylist()


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
