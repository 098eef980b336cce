"""The labels of a batch: found by name, withheld from the model, counted."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clce_hf.loss.targets import IGNORE_INDEX, one_number_per_sample

Batch = dict[str, Any]

_TOLERANCE = 1e-3
"""How far sums of shares may be from whole numbers, and shares from one another, by rounding."""


def required_arguments(model: nn.Module) -> set[str]:
    """Return the names of the arguments that a model's `forward` has no default for."""
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name for p in parameters if p.default is inspect.Parameter.empty}


def split_labels(
    inputs: Batch, label_names: Sequence[str], required: set[str]
) -> tuple[Batch, Tensor]:
    """Return the model's inputs, without labels unless its `forward` requires them, and the labels.

    Raises:
        ValueError: if the batch holds none of the label names, or no tensor under it.
    """
    name = _label_name(inputs, label_names)
    if name is None:
        raise ValueError(
            f"The batch holds no labels: none of label_names={list(label_names)}, which are keys "
            f"of a batch, is among {sorted(inputs)}. Check what the data collator returns, "
            "label_names, and, with set_transform, that remove_unused_columns is False."
        )
    labels = inputs[name]
    if not isinstance(labels, Tensor):
        raise ValueError(
            f"The labels of a batch, under {name!r}, must be a tensor, got a "
            f"{type(labels).__name__}: have the data collator return torch.tensor(...)."
        )
    # A model that is given labels of another column would compute its own loss with them.
    withheld = {name, "labels"} - required
    return {key: value for key, value in inputs.items() if key not in withheld}, labels


def countable(batch: Batch, label_names: Sequence[str]) -> Batch:
    """Return a batch whose images Trainer can count: by `labels`, one number per image."""
    labels = labels_of(batch, label_names)
    return {"labels": one_number_per_sample(labels)} if isinstance(labels, Tensor) else batch


def labels_of(batch: Any, label_names: Sequence[str]) -> Any:
    """Return the labels of a batch, None if it has none."""
    name = _label_name(batch, label_names) if isinstance(batch, Mapping) else None
    return None if name is None else batch[name]


def images_per_class(labels: Tensor) -> Tensor | None:
    """Return how many images of each class there are in a batch, int64 of shape (classes,).

    Mixing images of a batch with one another by the same share, as torchvision's MixUp and CutMix
    do, keeps the sum of the shares of each class: the number before. What label smoothing gave to
    every class is taken off.

    Args:
        labels: integers, shape (n,) or (n, 1), where -100 is no class; or probabilities, shape
            (n, classes).

    Returns:
        On the CPU. None where labels do not say it, as if each image was mixed by its own share.
    """
    is_soft = labels.is_floating_point()
    if labels.dim() != 2 if is_soft else labels.numel() != len(labels):
        return None
    if is_soft:
        shares = labels.detach().cpu().double()
        least = shares.min(1, keepdim=True).values
        if least.max() - least.min() < _TOLERANCE:
            shares = shares - least
        sums = (shares / shares.sum(1, keepdim=True)).sum(0)
        counts = sums.round()
        return counts.long() if (sums - counts).abs().max() < _TOLERANCE else None
    return labels[labels != IGNORE_INDEX].unique(return_counts=True)[1].cpu()


def _label_name(inputs: Mapping[str, Any], label_names: Sequence[str]) -> str | None:
    return next((name for name in label_names if inputs.get(name) is not None), None)
