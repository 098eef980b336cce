"""What a model is said to predict, in its config."""

from typing import Any

from torch import Tensor, nn

SINGLE_LABEL = "single_label_classification"


def declare_single_label(model: nn.Module, targets: Tensor) -> None:
    """Write into a config that says nothing what kind of labels the model is trained on.

    A model of Transformers does so when it computes its own loss, and what reads the saved config,
    such as a pipeline, counts on it.

    Args:
        model: with a config or without.
        targets: class ids, shape (n,); for class probabilities nothing is written.
    """
    config: Any = getattr(model, "config", None)
    if targets.dim() == 1 and getattr(config, "problem_type", "") is None:
        config.problem_type = SINGLE_LABEL
