"""Whether a model takes the pixels that an image processor makes."""

import torch
from PIL import Image
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor


def check_takes_pixels(model: PreTrainedModel, processor: BaseImageProcessor) -> None:
    """Raise `ValueError` unless one image goes through the processor and the model.

    Sizes and channels are told in too many ways by configs and processors to be compared. Weights
    that are only loaded later, as DeepSpeed and FSDP do, are not tried.
    """
    if any(weights.is_meta or weights.numel() == 0 for weights in model.parameters()):
        return
    side = getattr(model.config, "image_size", None)
    height, width = (side, side) if isinstance(side, int) else side or (64, 64)
    pixels = processor([Image.new("RGB", (width, height))], return_tensors="pt").get("pixel_values")
    if pixels is None or pixels.dim() != 4:
        return  # transforms of the images say so
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(pixel_values=pixels.to(model.device, model.dtype))
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        shape = " x ".join(map(str, pixels.shape[1:]))
        raise ValueError(
            f"{type(model).__name__} does not take the pixels of {type(processor).__name__}, "
            f"{shape} for each image: {' '.join(str(error).split())} An image processor of the "
            "model's own size and channels is needed; images are read as RGB, so there are three."
        ) from error
    finally:
        model.train(was_training)
