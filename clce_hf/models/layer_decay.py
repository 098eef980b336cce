"""Layer-wise learning-rate decay: the lower the layer, the smaller its learning rate.

The layers are the repeated blocks of the model in their order of registration, counted as in BEiT
(arXiv 2106.08254): what comes before the first block is layer 0, and what comes after the last one,
the classification layer included, keeps the full rate. A timm model defines its layers itself, and
that definition is used: it counts a final norm, for example, to the last block.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer


def layer_scales(model: nn.Module, decay: float) -> dict[nn.Parameter, float]:
    """Return each parameter's factor of the learning rate, decay ** (layers above it).

    Args:
        model: with blocks in `nn.ModuleList` or `nn.Sequential`, nested in stages or not; or a timm
            model, bare or wrapped.
        decay: in (0, 1].

    Raises:
        ValueError: if no blocks are found.
    """
    layers = _timm_layers(model) or _block_layers(model)
    top = max(layers.values(), default=0)
    if top == 0:
        raise ValueError(
            f"layer_decay found no repeated blocks in {type(model).__name__}: leave it at None."
        )
    return {parameter: decay ** (top - layer) for parameter, layer in layers.items()}


def apply_layer_decay(optimizer: Optimizer, model: nn.Module, decay: float) -> None:
    """Split a new optimizer's parameter groups by layer and scale their learning rates.

    Args:
        optimizer: one that has not stepped yet.
        model: the model whose parameters it holds.
        decay: in (0, 1].

    Raises:
        ValueError: if the model has no repeated blocks.
    """
    scales = layer_scales(model, decay)
    groups = []
    for group in optimizer.param_groups:
        by_scale = defaultdict(list)
        for parameter in group["params"]:
            by_scale[scales[parameter]].append(parameter)
        groups += [
            {**group, "params": parameters, "lr": group["lr"] * scale}
            for scale, parameters in by_scale.items()
        ]
    optimizer.param_groups.clear()
    # The first group's rate is the one that Trainer logs.
    for group in sorted(groups, key=lambda group: -group["lr"]):
        optimizer.add_param_group(group)


def _timm_layers(model: nn.Module) -> dict[nn.Parameter, int]:
    """Return the layer that timm assigns each parameter to; empty without a timm model.

    Parameters outside the timm model, such as a projection head, are in the top layer.
    """
    timm_model: Any = next((m for m in model.modules() if hasattr(m, "group_matcher")), None)
    if timm_model is None:
        return {}
    from timm.models import group_parameters

    layer_of_name = group_parameters(
        timm_model, timm_model.group_matcher(coarse=False), reverse=True
    )
    layers = dict.fromkeys(model.parameters(), max(layer_of_name.values()))
    for name, parameter in timm_model.named_parameters():
        layers[parameter] = layer_of_name[name]
    return layers


def _block_layers(model: nn.Module) -> dict[nn.Parameter, int]:
    """Return the layer of each parameter, 0 for all if there are no blocks."""
    blocks = list(_blocks(model))
    layer_of_block = {p: i + 1 for i, block in enumerate(blocks) for p in block.parameters()}
    last = len(blocks) + 1 if blocks else 0
    layers: dict[nn.Parameter, int] = {}
    layer = 0
    for parameter in model.parameters():
        layer = layer_of_block.get(parameter, layer if layer < last - 1 else last)
        layers[parameter] = layer
    return layers


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the innermost elements of stacks whose elements have submodules."""
    for child in module.children():
        elements = list(child.children())
        is_stack = isinstance(child, nn.ModuleList | nn.Sequential) and all(
            any(True for _ in element.children()) for element in elements
        )
        if not is_stack or not elements:
            yield from _blocks(child)
            continue
        for element in elements:
            inner = list(_blocks(element))
            yield from inner or [element]
