"""The labels of a batch: found by name, withheld from the model, counted."""

import inspect
from collections.abc import Sequence
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
        ValueError: if the batch holds none of the label names.
    """
    name = _label_name(inputs, label_names)
    if name is None:
        raise ValueError(
            f"The batch holds no labels: none of label_names={list(label_names)} is among "
            f"{sorted(inputs)}. Check what the data collator returns, label_names, and, with "
            "set_transform, that remove_unused_columns is False."
        )
    labels = inputs[name]
    if name in required:
        return inputs, labels
    return {key: value for key, value in inputs.items() if key != name}, labels


def countable(batch: Batch, label_names: Sequence[str]) -> Batch:
    """Return a batch whose images Trainer can count: by `labels`, one number per image."""
    name = _label_name(batch, label_names)
    labels = None if name is None else batch[name]
    return {"labels": one_number_per_sample(labels)} if isinstance(labels, Tensor) else batch


def _label_name(inputs: Batch, label_names: Sequence[str]) -> str | None:
    return next((name for name in label_names if inputs.get(name) is not None), None)
