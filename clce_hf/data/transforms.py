"""Transforms of a data set's rows: images decoded, augmented, and turned into a model's pixels."""

from collections.abc import Callable
from typing import Any

import datasets
import torch
from PIL import Image
from torchvision.transforms import v2
from transformers.image_processing_utils import BaseImageProcessor

Rows = dict[str, list[Any]]
"""Rows of a data set, by column."""

Transform = Callable[[Rows], Rows]

_AS_FILES = datasets.Image(decode=False)


class UnreadableImageError(OSError):
    """A file is not an image, or is damaged; the message names it."""


def with_images(dataset: datasets.Dataset, transform: Transform) -> datasets.Dataset:
    """Return the data set with a transform of its rows, like `Dataset.with_transform`.

    Reading a row raises `UnreadableImageError` for a file that cannot be decoded.

    Args:
        dataset: with a column `image` of the feature `datasets.Image`.
        transform: of rows with decoded images.
    """

    def decode_and_transform(rows: Rows) -> Rows:
        return transform({**rows, "image": [_decode(stored) for stored in rows["image"]]})

    return dataset.cast_column("image", _AS_FILES).with_transform(decode_and_transform)


def _decode(stored: dict[str, Any]) -> Any:
    try:
        return datasets.Image().decode_example(stored)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a damaged PNG
        name = stored["path"] or "of the data set"
        raise UnreadableImageError(f"The image {name} cannot be read: {error}") from error


def evaluation_rows(processor: BaseImageProcessor) -> Transform:
    """Return a data set transform that does what the processor does at inference.

    The transform maps columns `image` and `labels` to `pixel_values`, float32 of shape
    (channels, height, width), and `labels`.
    """

    def transform(rows: Rows) -> Rows:
        images = [image.convert("RGB") for image in rows["image"]]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        return {"pixel_values": list(pixels), "labels": rows["labels"]}

    return transform


def training_rows(processor: BaseImageProcessor, rand_augment: bool = False) -> Transform:
    """Return a data set transform with random crops and flips, at the processor's size.

    It maps the same columns as `evaluation_rows`. The processor still does all that is not resizing
    and cropping: some reverse the channels, or normalize twice.

    Args:
        processor: of the model.
        rand_augment: whether to add two random operations of magnitude 9 of RandAugment (arXiv
            1909.13719).

    Raises:
        ValueError: if the processor does not make images of one size.
    """
    steps = [
        v2.RandomResizedCrop(_output_size(processor), antialias=True),
        v2.RandomHorizontalFlip(),
    ]
    augment = v2.Compose([*steps, v2.RandAugment()] if rand_augment else steps)
    to_pixels = _without_geometry(processor)

    def transform(rows: Rows) -> Rows:
        images = [augment(image.convert("RGB")) for image in rows["image"]]
        return {"pixel_values": to_pixels(images), "labels": rows["labels"]}

    return transform


def _output_size(processor: BaseImageProcessor) -> tuple[int, int]:
    """Return height and width of the processor's pixels, which must be the same for any image."""
    sizes = set()
    for size in ((96, 64), (64, 64)):
        pixels = processor(Image.new("RGB", size), return_tensors="pt").get("pixel_values")
        if pixels is None or pixels.dim() != 4:
            raise ValueError(
                f"{type(processor).__name__} does not return pixel_values of shape "
                "(n, channels, height, width)."
            )
        sizes.add(tuple(pixels.shape[-2:]))
    if len(sizes) > 1:
        raise ValueError(
            f"{type(processor).__name__} keeps the proportions of each image, and images of "
            "different sizes do not fit in a batch: give it a size with height and width, or a "
            "crop_size."
        )
    return sizes.pop()


def _without_geometry(processor: BaseImageProcessor) -> Callable[[list[Any]], list[torch.Tensor]]:
    """Return what the processor does to images that have its output size already."""
    timm_config = getattr(processor, "data_config", None)  # timm's cannot leave steps out
    if timm_config is not None:
        steps = v2.Compose(
            [
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(timm_config["mean"]), list(timm_config["std"])),
            ]
        )
        return lambda images: [steps(image) for image in images]
    switches: dict[str, Any] = {
        name: False for name in ("do_resize", "do_center_crop") if hasattr(processor, name)
    }
    return lambda images: list(processor(images, return_tensors="pt", **switches)["pixel_values"])
