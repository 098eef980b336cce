"""Read the labels of a data set without decoding its images."""

from collections.abc import Sequence
from typing import Any

import datasets
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

COLUMN_NAMES = ("labels", "label", "label_ids")
"""Columns that transformers' default data collator takes for labels."""


def read_labels(dataset: Any, label_names: Sequence[str] = ()) -> Tensor | None:
    """Return the class id of every row, or None where they cannot be read without decoding.

    Reads a column of a Hugging Face data set (past any `set_transform`), the `targets` or `labels`
    attribute of a torchvision or other torch data set, and through `Subset` and `ConcatDataset`.

    Args:
        dataset: with a length.
        label_names: columns to look for before `labels`, `label` and `label_ids`.

    Returns:
        int64, shape (len(dataset),).

    Raises:
        ValueError: if the labels are there but are not one integer class id per row.
    """
    if isinstance(dataset, Subset):
        labels = read_labels(dataset.dataset, label_names)
        return None if labels is None else labels[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [read_labels(part, label_names) for part in dataset.datasets]
        readable = [part for part in parts if part is not None]
        return torch.cat(readable) if len(readable) == len(parts) else None
    names = (*label_names, *COLUMN_NAMES)
    if isinstance(dataset, datasets.Dataset):
        name = next((name for name in names if name in dataset.column_names), None)
        if name is None:
            return None
        column = dataset.data.column(name).to_numpy()
        # A million shuffled rows take 0.1 s by the private index, 7 s by the fastest public way.
        rows = dataset._indices
        return _class_ids(column if rows is None else column[rows.column(0).to_numpy()], name)
    for name in ("targets", *names):
        values = getattr(dataset, name, None)
        if values is not None:
            return _class_ids(values, name)
    return None


def _class_ids(values: Any, name: str) -> Tensor:
    try:
        labels = values if isinstance(values, Tensor) else torch.tensor(values)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The labels in {name!r} are not integer class ids; encode them first, for example "
            f"with Dataset.class_encode_column({name!r})."
        ) from error
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"The labels in {name!r} must be one integer class id per image, got {labels.dtype} of "
            f"shape {tuple(labels.shape)}: CLCE contrasts classes, so multi-label and regression "
            "targets do not fit it."
        )
    return labels.long()
