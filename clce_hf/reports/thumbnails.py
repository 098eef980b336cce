"""Small versions of many images, in one image."""

import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from PIL import Image, ImageOps

from clce_hf.data.pixels import to_rgb

SIZE = 80
_COLUMNS = 25
_BACKGROUND = (229, 231, 235)


@dataclass(frozen=True)
class ThumbnailSheet:
    """Thumbnails side by side.

    Attributes:
        jpeg: the image.
        columns: thumbnails in a row.
        rows: rows of thumbnails.
        places: `background-position` in CSS of each image's thumbnail, by the image's number.
    """

    jpeg: bytes
    columns: int
    rows: int
    places: dict[int, str]


def thumbnail_sheet(numbers: Iterable[int], image: Callable[[int], Image.Image]) -> ThumbnailSheet:
    """Put the images of these numbers into one, each on a square of 80 pixels.

    Args:
        numbers: of the images; repeated ones are shown once.
        image: gives the image of a number.
    """
    numbers = sorted(set(numbers))
    columns = min(_COLUMNS, max(1, len(numbers)))
    rows = max(1, math.ceil(len(numbers) / columns))
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE), _BACKGROUND)
    places = {}
    for i, number in enumerate(numbers):
        row, column = divmod(i, columns)
        # The mean of an area when it shrinks an image, and pixels with sharp edges when it grows.
        small = ImageOps.pad(
            to_rgb(image(number)), (SIZE, SIZE), Image.Resampling.BOX, color=_BACKGROUND
        )
        sheet.paste(small, (column * SIZE, row * SIZE))
        places[number] = f"{_share(column, columns)} {_share(row, rows)}"
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=85)
    return ThumbnailSheet(buffer.getvalue(), columns, rows, places)


def _share(i: int, count: int) -> str:
    """Where the i-th of some equal parts lies, in CSS: from 0 % to 100 %."""
    return f"{100 * i / max(1, count - 1):.4f}%"
