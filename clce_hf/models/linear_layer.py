"""The weights of a classification layer, where they can be set and what is set is saved."""

from typing import Any, cast

from torch import nn


def linear_parameters(
    model: nn.Module, name: str, *, doing: str, otherwise: str
) -> tuple[nn.Parameter, nn.Parameter | None]:
    """Return the weight and the bias of a linear layer or 1 x 1 convolution, those in training.

    Of a layer that PEFT's `modules_to_save` wraps, they are those of the copy that is trained.

    Args:
        model: that has the layer.
        name: of the layer, dotted.
        doing: what is done with them, such as "head_init sets", for the error.
        otherwise: what to do where it cannot be, such as "leave head_init out".

    Returns:
        The weight, shape (C, d) or (C, d, 1, 1), and the bias, shape (C,), or None without one.

    Raises:
        ValueError: for any other layer, for weights that are quantized or sharded, and for a layer
            that PEFT does not save with the adapter.
    """
    layer = model.get_submodule(name)
    copies = getattr(layer, "modules_to_save", None)
    is_copied = isinstance(copies, nn.ModuleDict)
    if is_copied:
        layer = cast(nn.ModuleDict, copies)[cast(Any, layer).active_adapters[0]]
    shape = None
    if isinstance(layer, nn.Linear):
        shape = (layer.out_features, layer.in_features)
    elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
        shape = (layer.out_channels, layer.in_channels, 1, 1)
    weight: Any = getattr(layer, "weight", None)
    # Quantized and sharded weights are of classes of their own, or are cut to pieces.
    is_plain = type(weight) is nn.Parameter and weight.shape == shape and not weight.is_meta
    if not is_plain or not weight.is_floating_point():
        raise ValueError(
            f"{doing} the weights of a linear layer or 1 x 1 convolution, but the classification "
            f"layer {name!r} is a {type(layer).__name__} with weights that are not its own, "
            f"quantized or sharded: {otherwise}, or with PEFT put the layer into modules_to_save."
        )
    if hasattr(model, "peft_config") and not (is_copied or weight.requires_grad):
        raise ValueError(
            f"{doing} the classification layer, {name!r}, but PEFT does not save it with the "
            f"adapter: put the layer into modules_to_save, or {otherwise}."
        )
    return weight, cast(Any, layer).bias
