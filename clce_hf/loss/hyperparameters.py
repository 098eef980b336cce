"""The hyperparameters of the loss and their ranges."""

import math
from typing import Literal, NamedTuple, get_args

Variant = Literal["in", "out"]
"""Where the mean over positives is taken: inside the logarithm (the paper) or outside."""


class Hyperparameters(NamedTuple):
    """The hyperparameters of the loss at the paper's values.

    Attributes:
        contrastive_weight: lambda, in [0, 1].
        temperature: tau, > 0.
        beta: concentration of the hard-negative weights, >= 0.
        variant: "in" or "out".
    """

    contrastive_weight: float = 0.9
    temperature: float = 0.5
    beta: float = 1.0
    variant: Variant = "in"


def check_hyperparameters(
    contrastive_weight: float = 0.9,
    temperature: float = 0.5,
    beta: float = 1.0,
    variant: str = "in",
) -> None:
    """Raise `ValueError`, naming the argument and its range, unless all four are in range."""
    if not 0.0 <= contrastive_weight <= 1.0:
        raise ValueError(
            f"contrastive_weight must lie in [0, 1], got {contrastive_weight}: 0 is cross-entropy "
            "alone, the paper uses 0.9."
        )
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ValueError(
            f"temperature must be positive and finite, got {temperature}: the paper uses 0.5."
        )
    if not (beta >= 0.0 and math.isfinite(beta)):
        raise ValueError(
            f"beta must be finite and not negative, got {beta}: 0 weights all negatives alike, "
            "the paper uses 1."
        )
    if variant not in get_args(Variant):
        raise ValueError(
            f'variant must be "in" (mean over positives inside the log) or "out", got {variant!r}.'
        )
