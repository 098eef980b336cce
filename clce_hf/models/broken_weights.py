"""Which weights of a model its training has broken."""

from torch import nn


def broken_weights(model: nn.Module) -> list[str]:
    """Return the names of weights and buffers that are not finite."""
    return [name for name, value in model.state_dict().items() if not value.isfinite().all()]
