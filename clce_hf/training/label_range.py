"""Name a class id that the model does not have, before training where that is certain."""

from collections.abc import Mapping
from typing import Any, cast

import datasets
from torch import Tensor, nn
from transformers import DefaultDataCollator, Trainer, default_data_collator

from clce_hf.data.labels import COLUMN_NAMES, stored_labels
from clce_hf.loss.targets import IGNORE_INDEX, outside_range
from clce_hf.models.classification_layer import candidate_layers


def check_stored_labels(trainer: Trainer) -> None:
    """Raise `ValueError` for a stored class id that the model does not have.

    Only where rows surely reach the loss as they are stored; else the batch is checked, when it
    comes.
    """
    dataset, collator = trainer.train_dataset, trainer.data_collator
    num_labels = getattr(getattr(trainer.model, "config", None), "num_labels", None)
    is_plain = type(dataset) in (datasets.Dataset, list, tuple)
    if isinstance(dataset, datasets.Dataset) and dataset.format["type"] == "custom":
        is_plain = False
    is_default = collator is default_data_collator or type(collator) is DefaultDataCollator
    if num_labels is None or trainer.compute_loss_func or not (is_plain and is_default):
        return
    if not candidate_layers(cast(nn.Module, trainer.model)):
        return  # the config is of another head than the model's
    key = trainer.label_names[0]
    names = COLUMN_NAMES if key == "labels" else (key,)
    there: Any = ()
    if isinstance(dataset, datasets.Dataset):
        there = dataset.column_names
    elif len(rows := cast(Any, dataset)) > 0 and isinstance(rows[0], Mapping):
        there = rows[0]
    name = next((name for name in names if name in there), None)
    labels = None if name is None else stored_labels(dataset, name)
    if labels is not None:
        check_in_range(labels, num_labels, f" of the training data, in {name!r},")


def check_in_range(labels: Tensor, num_labels: int, where: str = "") -> None:
    """Raise `ValueError` for a class id outside [0, num_labels) that is not -100.

    Args:
        labels: class ids, shape (n,), or class probabilities, which are in range.
        num_labels: of the model.
        where: the labels are, for the error.
    """
    is_outside = outside_range(labels, num_labels)
    if is_outside.any():
        raise ValueError(
            f"A label{where} is {int(labels[is_outside][0])}, but the model has num_labels="
            f"{num_labels}, so class ids must lie in [0, {num_labels}): number them from 0, or "
            "load the model with from_pretrained(..., num_labels=...). The label of images "
            f"without a class is {IGNORE_INDEX}."
        )
