"""Decode the images of a data set on their way into a transform, and name the one that fails."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset, Image

Rows = dict[str, list[Any]]

_AS_FILES = Image(decode=False)


class UnreadableImageError(OSError):
    """A file is no image, or a damaged one; the message names it."""


def with_images(dataset: Dataset, transform: Callable[[Rows], Rows]) -> Dataset:
    """Return the data set with a transform of its rows, like `Dataset.with_transform`.

    Reading a row raises `UnreadableImageError` for a file that cannot be decoded.

    Args:
        dataset: with a column `image` of the feature `datasets.Image`.
        transform: takes the rows with decoded images, as `clce_hf.data.transforms` makes them.
    """

    def decode_and_transform(rows: Rows) -> Rows:
        return transform({**rows, "image": [_decoded(stored) for stored in rows["image"]]})

    return dataset.cast_column("image", _AS_FILES).with_transform(decode_and_transform)


def _decoded(stored: dict[str, Any]) -> Any:
    try:
        return Image().decode_example(stored)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a damaged PNG
        name = stored["path"] or "of the data set"
        raise UnreadableImageError(f"The image {name} cannot be read: {error}") from error
