"""Tell the logits among what a model returns."""

from collections.abc import Callable
from typing import Any

from torch import Tensor


def logits_of(outputs: Any, num_classes: int | None = None) -> Tensor:
    """Return the logits among a model's outputs, shape (n, classes).

    They are the output of that name, else the first that is not a scalar.

    Args:
        outputs: as a model returns them.
        num_classes: of the model, so that features that come first are not taken for logits; None
            where it is not known.

    Raises:
        ValueError: if none of several outputs has a number for each of the classes.
    """
    possible = possible_logits(outputs, num_classes)
    if not possible:
        raise ValueError(unnamed_logits(num_classes))
    return possible[0]


def only_logits_of(outputs: Any, num_classes: Callable[[], int | None]) -> Tensor:
    """Return the logits where no layer's output tells them, if nothing else can be meant.

    Args:
        outputs: as a model returns them.
        num_classes: returns that of the model; called only where several outputs may be meant.

    Raises:
        ValueError: if several outputs may be the logits, or none.
    """
    possible = possible_logits(outputs)
    if len(possible) > 1:
        known = num_classes()
        possible = possible if known is None else possible_logits(outputs, known)
        if len(possible) != 1:
            raise ValueError(unnamed_logits(known))
    return possible[0]


def possible_logits(outputs: Any, num_classes: int | None = None) -> list[Tensor]:
    """Return the outputs that may be the logits, in their order; one, if it is named so or alone.

    Args:
        outputs: as a model returns them.
        num_classes: of the model; None where it is not known.
    """
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        if "logits" in outputs:
            return [outputs["logits"]]
        outputs = outputs.values()
    tensors = [output for output in outputs if isinstance(output, Tensor) and output.dim() > 0]
    if num_classes is None or len(tensors) < 2:
        return tensors
    return [t for t in tensors if t.dim() == 2 and t.shape[1] == num_classes]


def unnamed_logits(num_classes: int | None) -> str:
    """Say what a model has to return, whose logits cannot be told from its other outputs."""
    shape = "(n, classes)" if num_classes is None else f"(n, {num_classes})"
    return (
        f"Which of the model's outputs are its logits, of shape {shape}, cannot be told: have its "
        "forward return a dict with the key 'logits'."
    )
