"""Turn a column of files, bytes or arrays into images, and refuse what is none."""

from typing import Any

import numpy as np
from datasets import Array2D, Array3D, Array4D, Array5D, Dataset, Image, LargeList, List, Value

from clce_hf.data.pixels import image_of
from clce_hf.errors import ArgumentError, abbreviate

_FILES = ("string", "large_string", "binary", "large_binary")
"""Types of a column of paths, or of the bytes of files."""


def as_images(dataset: Dataset, name: str, split: str) -> Dataset:
    """Return the data set with its column `image` as decoded images.

    Files and bytes stay as they are stored; arrays and nested lists are stored anew, as PNG files
    of 8 bits a channel.

    Args:
        dataset: with a column `image`, none of whose rows were selected yet.
        name: what this column was called, for the errors.
        split: what the data set is called, for the errors.

    Raises:
        ArgumentError: if the column holds something else, or flat lists.
        ValueError: if a row has no image, or an array that is none.
    """
    feature = dataset.features["image"]
    dtype, dimensions = _numbers(feature)
    if dimensions in (1, 4, 5):
        held = "flat lists" if dimensions == 1 else f"arrays of {dimensions} dimensions"
        raise ArgumentError(
            "image_column",
            f"image column {name!r}: its rows are {held} of numbers, not images: reshape each to "
            "(height, width) or (height, width, channels).",
        )
    if dimensions == 0 and not _is_of_files(feature):
        raise ArgumentError("image_column", f"image column {name!r}: it holds no images: {feature}")
    _check_none_is_missing(dataset.data.column("image"), f"{name!r} of {split!r}")
    if dimensions:
        return _encoded(dataset, dtype, split)
    if isinstance(feature, Image) and feature.decode:
        return dataset
    return dataset.cast_column("image", Image())


def _is_of_files(feature: Any) -> bool:
    if isinstance(feature, dict):
        return bool(feature) and feature.keys() <= {"bytes", "path"}
    return isinstance(feature, Image) or (isinstance(feature, Value) and feature.dtype in _FILES)


def _numbers(feature: Any) -> tuple[str, int]:
    """Return the type of the numbers of arrays or nested lists and their dimensions, else 0."""
    if isinstance(feature, Array2D | Array3D | Array4D | Array5D):
        return feature.dtype, len(feature.shape)
    dimensions = 0
    while isinstance(feature, List | LargeList):
        feature, dimensions = feature.feature, dimensions + 1
    dtype = feature.dtype if isinstance(feature, Value) else ""
    return dtype, dimensions if dtype.startswith(("int", "uint", "float", "bool")) else 0


def _check_none_is_missing(column: Any, name: str) -> None:
    """Refuse rows of an Arrow column that are null, or structs of nothing but null."""
    parts = column.flatten()  # one for each field of a struct, else itself
    missing = np.logical_and.reduce([part.is_null().to_numpy() for part in parts])
    rows = np.flatnonzero(missing)
    if len(rows):
        raise ValueError(
            f"{len(rows):,} of {len(column):,} rows have no image (None) in the column {name}, "
            f"those numbered {abbreviate([str(row) for row in rows])}: take them out."
        )


def _encoded(dataset: Dataset, dtype: str, split: str) -> Dataset:
    features = dataset.features.copy()
    features["image"] = Image()
    return dataset.map(
        _encode,
        with_indices=True,
        input_columns="image",
        features=features,
        fn_kwargs={"dtype": dtype, "split": split},
    )


def _encode(array: Any, row: int, dtype: str, split: str) -> dict[str, Any]:
    try:
        return {"image": image_of(array, dtype)}
    except ValueError as error:
        reason = str(error)
        if "inhomogeneous" in reason:  # as numpy says it
            reason = "its lists have different lengths"
        raise ValueError(
            f"The image in row {row} of {split!r} cannot be read: {reason}."
        ) from error
