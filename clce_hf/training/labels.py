"""The labels of a batch: found by name, withheld from the model, counted."""

import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter
from typing import Any

from torch import Tensor, nn
from transformers.trainer_utils import unwrap_peft_model

from clce_hf.loss.targets import IGNORE_INDEX, one_number_per_sample

Batch = dict[str, Any]


def reads(model: nn.Module, name: str) -> bool:
    """Whether a model's `forward` needs labels of that name, or takes whatever it is given."""
    parameters = inspect.signature(unwrap_peft_model(model).forward).parameters
    if name in parameters:
        return parameters[name].default is Parameter.empty
    return any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())


def split_labels(
    inputs: Batch, label_names: Sequence[str], model: nn.Module
) -> tuple[Batch, Tensor]:
    """Return the model's inputs, without labels unless its `forward` reads them, and the labels.

    Raises:
        ValueError: if the batch holds none of the label names.
    """
    if not isinstance(inputs, Mapping):
        raise ValueError(
            f"The batch is a {type(inputs).__name__}, but a model takes its inputs by name: have "
            "the data collator return a dict, as transformers' default_data_collator does."
        )
    name = _label_name(inputs, label_names)
    if name is None:
        raise ValueError(
            f"The batch holds no labels: none of label_names={list(label_names)} is among "
            f"{sorted(inputs)}. Check what the data collator returns, label_names, and, with "
            "set_transform, that remove_unused_columns is False."
        )
    labels = inputs[name]
    if reads(model, name):
        return inputs, labels
    return {key: value for key, value in inputs.items() if key != name}, labels


def countable(batch: Any) -> Any:
    """Return a batch that Trainer counts right, one number for an image's class probabilities."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, Tensor):
        return batch
    return {**batch, "labels": one_number_per_sample(labels)}


def count_labels(batch: Any, label_names: Sequence[str]) -> Tensor | None:
    """Return how many images of a batch are labeled, a scalar; None if that cannot be told."""
    name = _label_name(batch, label_names) if isinstance(batch, Mapping) else None
    labels = None if name is None else batch[name]
    if not isinstance(labels, Tensor):
        return None
    return one_number_per_sample(labels).ne(IGNORE_INDEX).sum()


def _label_name(inputs: Mapping[str, Any], label_names: Sequence[str]) -> str | None:
    return next((name for name in label_names if inputs.get(name) is not None), None)
