"""Pixels of 8 bits, from whatever an image or an array stores, where that has one right meaning."""

import warnings
from typing import Any

import numpy as np
from PIL import Image

_WIDE_MODES = ("I", "F")
"""Modes of Pillow with more than 8 bits, apart from those that begin with `I;16`."""

_BITS_PER_SAMPLE = 258
"""Tag of TIFF: Pillow reads 12 bits into 16, and leaves them as small as they are."""


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the image with 8 bits a channel: `convert` would clip 16-bit gray and floats instead.

    Args:
        image: of any mode; one of 8 bits or fewer is returned as it is.

    Raises:
        ValueError: if it is not known which of its values is white.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        if getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,):
            values = (values << 4) | (values >> 8)
        return Image.fromarray(_levels(values))
    if image.mode not in _WIDE_MODES:
        return image
    values = np.asarray(image)
    # In these formats, what Pillow reads as 32 bits has 16, with white at 65,535.
    if image.mode == "I" and image.format in ("PPM", "PNG"):
        values = values.astype(np.uint16)
    return Image.fromarray(_levels(values))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return the image in color, 8 bits a channel, without its transparency, as `pipeline` sees it.

    Raises:
        ValueError: if it is not known which of its values is white.
    """
    image = to_eight_bits(image)
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # Pillow would warn, and return the same colors
    return image.convert("RGB")


def image_of(array: Any, dtype: Any = None) -> Image.Image:
    """Return an array or nested list as a gray or color image of 8 bits a channel.

    Args:
        array: of shape (height, width), or with 1 to 4 channels before or after these two; where
            both ends could be the channels, the last one is.
        dtype: of a nested list; None for numpy's choice.

    Raises:
        ValueError: for another shape, or if it is not known which of its values is white.
    """
    values = np.asarray(array, dtype)
    shape = values.shape
    if values.ndim == 3 and shape[2] not in (1, 2, 3, 4) and shape[0] in (1, 2, 3, 4):
        values = np.moveaxis(values, 0, 2)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or 0 in shape or values.shape[2:] > (4,):
        raise ValueError(
            f"it is an array of shape {shape}, and an image has the shape (height, width), or "
            "(height, width, channels) or (channels, height, width) with 1 to 4 channels: reshape "
            "it"
        )
    return Image.fromarray(np.ascontiguousarray(_levels(values)))


def _levels(values: np.ndarray) -> np.ndarray:
    """Return values as uint8 of the same shape, black 0 and white 255."""
    if values.dtype == bool:
        return np.uint8(255) * values
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        return _levels_of_floats(values, float(low), float(high))
    if values.dtype == np.uint16:
        # An image of 16 bits that is this dark may be one of 8 bits that was stored as 16.
        if 0 < high <= 255:
            raise ValueError(
                f"it has 16 bits, in which white is 65,535, and its brightest pixel is {high}: "
                "scale its pixels, or store them with 8 bits"
            )
        if 0 < high <= 4095:
            warnings.warn(
                "An image of 16 bits has no pixel brighter than 4,095, and white is 65,535: it is "
                "read as almost black. Pixels of 12 bits have to be scaled before.",
                stacklevel=2,
            )
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(
            f"its pixels are integers from {low} to {high}, and which is white is only known of "
            "8 bits, 0 to 255, and of unsigned 16 bits: store them so"
        )
    return values.astype(np.uint8)


def _levels_of_floats(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if np.isnan(low):  # as the minimum of any NaN is
        raise ValueError("some of its pixels are NaN")
    if low >= 0 and high <= 1:
        return (values * 255).round().astype(np.uint8)
    # What lies between 1 and 2 is not 8-bit, which would be black, and not quite [0, 1].
    if low >= 0 and 2 <= high <= 255:
        return values.astype(np.uint8)
    raise ValueError(
        f"its pixels are floats from {low:g} to {high:g}, and which is white is only known of "
        "0 to 1 and of 0 to 255: scale them"
    )
