"""What an image processor makes of images: their size, and its steps without resizing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image
from torchvision.transforms import v2
from transformers.image_processing_utils import BaseImageProcessor


def output_size(processor: BaseImageProcessor) -> tuple[int, int]:
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


def without_geometry(processor: BaseImageProcessor) -> Callable[[list[Any]], list[torch.Tensor]]:
    """Return what the processor does to images that have its output size already."""
    timm_config = getattr(processor, "data_config", None)  # timm's cannot leave steps out
    if timm_config is not None:
        return _EachImage(
            v2.Compose(
                [
                    v2.ToImage(),
                    v2.ToDtype(torch.float32, scale=True),
                    v2.Normalize(list(timm_config["mean"]), list(timm_config["std"])),
                ]
            )
        )
    switches = {name: False for name in ("do_resize", "do_center_crop") if hasattr(processor, name)}
    return _ProcessorWithout(processor, switches)


@dataclass(frozen=True)
class _EachImage:
    steps: v2.Transform

    def __call__(self, images: list[Any]) -> list[torch.Tensor]:
        return [self.steps(image) for image in images]


@dataclass(frozen=True)
class _ProcessorWithout:
    processor: BaseImageProcessor
    switches: dict[str, bool]

    def __call__(self, images: list[Any]) -> list[torch.Tensor]:
        pixels: Any = self.processor(images, return_tensors="pt", **cast(Any, self.switches))
        return list(pixels["pixel_values"])
