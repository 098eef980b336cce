"""Tell the logits among what a model returns."""

from typing import Any

from torch import Tensor


def logits_of(outputs: Any) -> Tensor:
    """Return the output that is named logits, else the first that is not a scalar.

    Args:
        outputs: as a model returns them.

    Raises:
        ValueError: if there is none.
    """
    return possible_logits(outputs)[0]


def possible_logits(outputs: Any) -> list[Tensor]:
    """Return the outputs that may be the logits, in their order; one, if it is named so or alone.

    Args:
        outputs: as a model returns them.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        if "logits" in outputs:
            return [outputs["logits"]]
        outputs = outputs.values()
    tensors = [output for output in outputs if isinstance(output, Tensor) and output.dim() > 0]
    if not tensors:
        raise ValueError(f"The model returns no logits. {RETURN_LOGITS}")
    return tensors


def logits_by_size(outputs: list[Tensor], num_classes: int | None, is_sure: bool) -> Tensor:
    """Return the logits of several outputs, where no layer's output tells them.

    They are the first, unless that has another size and one of the others that of the logits.

    Args:
        outputs: that may be the logits.
        num_classes: of the model; None where it is not known.
        is_sure: whether it is; else such another is refused.

    Raises:
        ValueError: if it cannot be told.
    """
    fitting = [output for output in outputs if output.flatten(1).shape[1] == num_classes]
    if not fitting or fitting[0] is outputs[0]:
        return outputs[0]
    if is_sure:
        return fitting[0]
    raise ValueError(f"Which of the model's outputs are its logits cannot be told. {RETURN_LOGITS}")


RETURN_LOGITS = "Have its forward return a dict with the key 'logits'."
"""What makes them known."""
