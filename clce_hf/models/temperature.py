"""Fold a temperature into a classification layer: its logits come out divided by it.

The model stays one of its architecture, so whatever loads it has the calibrated probabilities.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from clce_hf.models.classification_layer import candidate_layers, find_classification_layer
from clce_hf.models.linear_layer import linear_parameters

_MOST_OFF = 1e-2
"""Of the largest logit: more than GPU kernels make, and far less than a wrong layer does."""


def foldable_parameters(
    model: nn.Module, classification_layer: str | None = None
) -> tuple[str, list[nn.Parameter]]:
    """Return the name of the classification layer, and the weights that a temperature divides.

    Args:
        model: an image classifier.
        classification_layer: dotted name of the layer; None searches for it.

    Raises:
        ValueError: if the layer is not found, is not one linear map, has quantized or sharded
            weights, or is not saved with a PEFT adapter.
    """
    name, _ = find_classification_layer(model, classification_layer)
    weight, bias = linear_parameters(
        model,
        name,
        doing="calibrate() divides",
        otherwise="divide its logits by clce_hf.evaluation.fit_temperature(logits, labels) instead",
    )
    return name, [weight] if bias is None else [weight, bias]


def fold_temperature(parameters: list[nn.Parameter], temperature: float) -> None:
    """Divide the weights of a layer by a temperature, in place."""
    with torch.no_grad():
        for parameter in parameters:
            parameter.div_(temperature)


def check_divides_logits(
    model: nn.Module, name: str, parameters: list[nn.Parameter], logits: Callable[[], Tensor]
) -> None:
    """Check that half the weights give half the logits; the weights are as before afterwards.

    A power of 2 is exact in any floating-point format, so rounding has no part in it.

    Args:
        model: for the error.
        name: of the classification layer.
        parameters: of the layer.
        logits: runs the model on some images.

    Raises:
        ValueError: if the logits come out otherwise: the model has another head beside this one,
            or scales or normalizes what the layer returns.
    """
    before, kept = logits(), [parameter.detach().clone() for parameter in parameters]
    fold_temperature(parameters, 2.0)
    try:
        halved = logits()
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)
    if (before - 2 * halved).abs().amax() > _MOST_OFF * before.abs().amax():
        raise ValueError(
            f"calibrate() divides the weights of the layer {name!r} by a temperature, but that "
            f"does not divide the logits of {type(model).__name__} by it: they are the mean of two "
            "heads, or scaled or normalized after the layer, or another layer makes them (there "
            f"are {', '.join(candidate_layers(model))}). Name it with classification_layer, or "
            "divide the logits by clce_hf.evaluation.fit_temperature(logits, labels) instead."
        )
