"""The labels of a batch: found by name, withheld from the model, counted."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from clce_hf.loss.targets import one_number_per_sample

Batch = dict[str, Any]


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
    name = _label_name(batch, label_names)
    labels = None if name is None else batch[name]
    return {"labels": one_number_per_sample(labels)} if isinstance(labels, Tensor) else batch


def _label_name(inputs: Mapping[str, Any], label_names: Sequence[str]) -> str | None:
    return next((name for name in label_names if inputs.get(name) is not None), None)


def labels_of(batch: Any, label_names: Sequence[str]) -> Any:
    """Return the labels of a batch, None if it has none."""
    name = _label_name(batch, label_names) if isinstance(batch, Mapping) else None
    return None if name is None else batch[name]
