"""Transforms of a data set's rows: images decoded, augmented, and turned into a model's pixels.

All of them are objects that pickle, as workers of a `DataLoader` need where they are not forked.
"""

import contextlib
import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.transforms import v2
from transformers.image_processing_utils import BaseImageProcessor

from clce_hf.data.pixels import image_of, to_eight_bits, to_rgb
from clce_hf.data.processors import output_size, without_geometry

Rows = dict[str, list[Any]]
"""Rows of a data set, by column."""

Transform = Callable[[Rows], Rows]

_AS_FILES = datasets.Image(decode=False)
_ROW = "__row__"
"""Column of the number of each row, which an error names."""

IS_READABLE = "is_readable"
"""Column of bools, where unreadable images are kept."""


class UnreadableImageError(OSError):
    """An image is missing or damaged, or its pixels have no one meaning; the message names it."""

    def __init__(self, message: str) -> None:
        # That of a worker comes with a traceback, in whose last line is all that a user needs.
        super().__init__(message.rpartition(f"{type(self).__name__}: ")[2].strip())


def with_images(
    dataset: datasets.Dataset, transform: Transform, keep_unreadable: bool = False
) -> datasets.Dataset:
    """Return the data set with a transform of its rows, like `Dataset.with_transform`.

    Reading a row raises `UnreadableImageError` for an image that is missing, cannot be decoded, or
    has pixels of which it is not known which is white. The limits of size are Pillow's.

    Args:
        dataset: with a column `image` of the feature `datasets.Image`.
        transform: of rows with decoded images of 8 bits a channel, turned as their EXIF says.
        keep_unreadable: whether to raise nothing, give such a row the pixels of another image, and
            say in the column `is_readable` which rows have their own.
    """
    # Numbered first: a cast takes the rows of a block in memory whose columns were taken away.
    stored = _with_row_numbers(dataset).cast_column("image", _AS_FILES)
    decode = _MarkUnreadable(transform) if keep_unreadable else _DecodeAndTransform(transform)
    return stored.with_transform(decode)


def _with_row_numbers(dataset: datasets.Dataset) -> datasets.Dataset:
    """Number the rows as they are stored, which `add_column` alone would gather and copy."""
    if _ROW in dataset.column_names:
        return dataset
    whole = copy.copy(dataset)
    whole._indices = None
    whole = whole.add_column(_ROW, np.arange(len(dataset.data)))
    whole._indices = dataset._indices
    return whole


@dataclass(frozen=True)
class _DecodeAndTransform:
    transform: Transform

    def __call__(self, rows: Rows) -> Rows:
        rows = dict(rows)
        numbers = rows.pop(_ROW)
        images = [_decode(*row) for row in zip(rows["image"], numbers, strict=True)]
        return self.transform({**rows, "image": images})


@dataclass(frozen=True)
class _MarkUnreadable:
    transform: Transform

    def __call__(self, rows: Rows) -> Rows:
        rows = dict(rows)
        numbers = rows.pop(_ROW)
        images: list[Any] = [None] * len(numbers)
        for i, row in enumerate(zip(rows["image"], numbers, strict=True)):
            with contextlib.suppress(UnreadableImageError):
                images[i] = _decode(*row)
        # One of the batch, since all of them may have to be of one size.
        other = next((image for image in images if image is not None), Image.new("RGB", (64, 64)))
        whole = [other if image is None else image for image in images]
        readable = [image is not None for image in images]
        return {**self.transform({**rows, "image": whole}), IS_READABLE: readable}


def _decode(stored: dict[str, Any] | None, row: int) -> Image.Image:
    stored = stored or {}
    data, path = stored.get("bytes"), stored.get("path")
    if data is None and path is None:
        raise UnreadableImageError(f"The image in row {row} is missing (None).")
    name = f"in row {row}" + (f" ({path})" if path else "")
    if data is None:
        name = str(path)
    try:
        if data is None and path and os.path.isfile(path):  # Pillow leaves damaged files open
            data = Path(path).read_bytes()
        image = datasets.Image().decode_example({"bytes": data, "path": path})
        _check_is_no_flat_row(image, path)
        return to_eight_bits(image)
    except UnidentifiedImageError as error:
        kind = "no image of a kind that Pillow reads"
        if data is not None and data.startswith(b"version https://git-lfs"):
            kind = "a pointer of Git LFS, whose file `git lfs pull` fetches"
        raise UnreadableImageError(f"The image {name} cannot be read: it is {kind}.") from error
    except Exception as error:  # Pillow raises whatever a damaged file makes its readers stumble on
        raise _unreadable(name, error) from error


def _check_is_no_flat_row(image: Image.Image, path: str | None) -> None:
    if path is None and image.width == 1 and image.height > 1:
        raise ValueError(
            f"it is 1 pixel wide and {image.height:,} high, a flat list of pixels: reshape it"
        )


def _unreadable(name: str, error: Exception) -> UnreadableImageError:
    reason = " ".join(str(error).split()).rstrip(".")
    if not (reason and isinstance(error, ValueError | OSError)):
        reason = ": ".join(filter(None, (type(error).__name__, reason)))
    return UnreadableImageError(f"The image {name} cannot be read: {reason}.")


def _in_color(image: Any) -> Image.Image:
    """Return an image or array in color, 8 bits a channel."""
    if image is None:
        raise UnreadableImageError("An image of the data set is missing (None).")
    try:
        return to_rgb(image if isinstance(image, Image.Image) else image_of(image))
    except Exception as error:
        raise _unreadable(getattr(image, "filename", "") or "of the data set", error) from error


def evaluation_rows(processor: BaseImageProcessor) -> Transform:
    """Return a data set transform that does what the processor does at inference.

    The transform maps columns `image` and `labels` to `pixel_values`, float32 of shape
    (channels, height, width), and `labels`, where there are any. It pickles.
    """
    return _EvaluationRows(processor)


@dataclass(frozen=True)
class _EvaluationRows:
    processor: BaseImageProcessor

    def __call__(self, rows: Rows) -> Rows:
        images = [_in_color(image) for image in rows["image"]]
        pixels = self.processor(images, return_tensors="pt")["pixel_values"]
        labels = {"labels": rows["labels"]} if "labels" in rows else {}
        return {"pixel_values": list(pixels), **labels}


def training_rows(processor: BaseImageProcessor, rand_augment: bool = False) -> Transform:
    """Return a data set transform with random crops and flips, at the processor's size.

    It maps the same columns as `evaluation_rows`, and pickles. The processor still does all that is
    not resizing and cropping: some reverse the channels, or normalize twice.

    Args:
        processor: of the model.
        rand_augment: whether to add two random operations of magnitude 9 of RandAugment (arXiv
            1909.13719).

    Raises:
        ValueError: if the processor does not make images of one size.
    """
    steps = [
        v2.RandomResizedCrop(output_size(processor), antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    augment = v2.Compose([*steps, v2.RandAugment()] if rand_augment else steps)
    return _TrainingRows(augment, without_geometry(processor))


@dataclass(frozen=True)
class _TrainingRows:
    augment: v2.Transform
    to_pixels: Callable[[list[Any]], list[torch.Tensor]]

    def __call__(self, rows: Rows) -> Rows:
        images = [self.augment(_in_color(image)) for image in rows["image"]]
        return {"pixel_values": self.to_pixels(images), "labels": rows["labels"]}
