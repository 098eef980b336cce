"""Read the class of each row of a data set without decoding its images."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from datasets.arrow_dataset import Column
from torch import Tensor
from torch.utils.data import ConcatDataset, IterableDataset, Subset
from transformers.trainer_utils import has_length

COLUMN_NAMES = ("labels", "label", "label_ids")
"""Columns that transformers' default data collator takes for labels."""

_ARROW_INTEGERS = re.compile(r"((large_|fixed_size_)?list<\w+: )?(u?int\d|bool)")


class Labels(NamedTuple):
    """Class ids that were found in a data set.

    Attributes:
        ids: int64, shape (rows,).
        source: where they were found, for messages: "column 'label'".
    """

    ids: Tensor
    source: str


def how_to_name_them(dataset: Any) -> str:
    """Say how to name the right labels of a data set, for the end of an error."""
    if isinstance(dataset, (list, tuple)):
        return "make the rows of the list dicts with the class id under the key 'labels'."
    if isinstance(dataset, datasets.Dataset):
        return (
            'set train_dataset.targets = train_dataset["COLUMN"], or a list of one integer for '
            "each row, as the last step, since select and shuffle lose it."
        )
    return "set train_dataset.targets = [...], one integer for each row."


def find_labels(dataset: Any, label_names: Sequence[str] = ()) -> Labels | None:
    """Return the class id of every row, or None where there is nothing to read.

    They are read from the first of these that is one integer for each row, shape (n,) or (n, 1):
    an attribute `targets`; a column of a Hugging Face data set, past any `set_transform`, or a key
    of the rows of a list, or else an attribute, by the names `label_names`, `labels`, `label` and
    `label_ids`. A `Subset` or `ConcatDataset` without any has those of its parts.

    Args:
        dataset: with a length.
        label_names: to look for before the usual names.

    Raises:
        ValueError: if there are such attributes or columns, but none is one integer for each row;
            it says what they are instead.
    """
    unfit = []
    for source, values in _candidates(dataset, dict.fromkeys((*label_names, *COLUMN_NAMES))):
        try:
            return Labels(_class_ids(values, len(dataset)), source)
        except _Unfit as reason:
            unfit.append(f"{source} {reason}")
    if unfit:
        raise ValueError(f"No labels are one integer for each row: {', '.join(unfit)}.")
    if isinstance(dataset, Subset):
        found = find_labels(dataset.dataset, label_names)
        return found and Labels(found.ids[torch.as_tensor(dataset.indices)], found.source)
    if isinstance(dataset, ConcatDataset):
        parts = [found for part in dataset.datasets if (found := find_labels(part, label_names))]
        if parts and len(parts) == len(dataset.datasets):
            return Labels(torch.cat([part.ids for part in parts]), parts[0].source)
    return None


def read_labels(dataset: Any, label_names: Sequence[str] = ()) -> Tensor | None:
    """Return the class ids that `find_labels` finds, int64 of shape (rows,), or None."""
    found = find_labels(dataset, label_names)
    return None if found is None else found.ids


def required_labels(dataset: Any, label_names: Sequence[str], setting: str) -> Labels:
    """Return what `find_labels` does, for a setting that cannot do without.

    Raises:
        ValueError: naming the setting, if the data set has no rows to choose from, if there are no
            labels, or if none is one integer for each row.
    """
    if isinstance(dataset, IterableDataset) or not has_length(dataset):
        raise ValueError(
            f"{setting} chooses rows of the training data by their class, and needs a data set "
            f"with a length and without an order of its own, got a {type(dataset).__name__}: "
            f"leave {setting} out."
        )
    try:
        labels = find_labels(dataset, label_names)
    except ValueError as error:
        raise ValueError(
            f"{setting} needs the class id of each row. {error} To name the right ones, "
            f"{how_to_name_them(dataset)}"
        ) from None
    if labels is None:
        names = ", ".join(dict.fromkeys(("targets", *label_names, *COLUMN_NAMES)))
        raise ValueError(
            f"{setting} needs the class id of each row, and the training data, of type "
            f"{type(dataset).__name__}, has none by the names {names}. To name others, "
            f"{how_to_name_them(dataset)}"
        )
    return labels


def stored_labels(dataset: Any, name: str) -> Tensor | None:
    """Return the class ids, shape (n,), of the rows of a list or of a Hugging Face data set.

    None where the rows have no such column or key, or where it is not one integer for each row.
    """
    try:
        values = _stored(dataset, name)
        return None if values is None else _class_ids(values, len(dataset))
    except _Unfit:
        return None


class _Unfit(Exception):
    """Values are not one integer for each row; the message goes on from what they are."""


def _candidates(dataset: Any, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield what may be labels and where it was found, best first."""
    has_rows = isinstance(dataset, (datasets.Dataset, list, tuple))
    for name in ("targets",) if has_rows else ("targets", *names):
        values = getattr(dataset, name, None)
        if values is not None:
            yield f"attribute {name!r}", values
            if isinstance(dataset, datasets.Dataset):
                return  # somebody set it
    kind = "column" if isinstance(dataset, datasets.Dataset) else "key"
    for name in names:
        values = _stored(dataset, name)
        if values is not None:
            yield f"{kind} {name!r}", values


def _stored(dataset: Any, name: str) -> Any:
    """Return a column, or a key of the rows of a list, without decoding; None if there is none."""
    if isinstance(dataset, datasets.Dataset):
        return Column(dataset, name) if name in dataset.column_names else None
    if isinstance(dataset, (list, tuple)) and dataset and isinstance(dataset[0], Mapping):
        values = [row.get(name) for row in dataset]
        return None if all(value is None for value in values) else values
    return None


def _class_ids(values: Any, num_rows: int) -> Tensor:
    """Return values as int64 of shape (num_rows,), or raise `_Unfit`."""
    if isinstance(values, Column):
        values = _read_column(values)
    try:
        array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
        if array.dtype == object:  # of pandas or Arrow, which hold integers so, too
            array = np.asarray(array.tolist())
    except (TypeError, ValueError):
        raise _Unfit("is not one value for each row") from None
    if array.ndim == 0:
        raise _Unfit(f"is a {type(values).__name__}")
    if array.shape not in ((num_rows,), (num_rows, 1)):
        raise _Unfit(f"is of shape {array.shape} for {num_rows} rows")
    if array.dtype.kind not in "iub":
        kind = "strings" if array.dtype.kind in "UST" else array.dtype
        raise _Unfit(f"holds {kind}, not integers")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _read_column(column: Column) -> np.ndarray:
    """Return a column as it is stored: its data set may decode images to answer."""
    dataset, name = column.source, column.column_name
    if not isinstance(dataset, datasets.Dataset):
        raise _Unfit("is a field of a column")
    if name not in dataset.column_names:
        raise _Unfit(f"is the column {name!r}, which is gone")
    stored = dataset.data.column(name)
    if not _ARROW_INTEGERS.match(str(stored.type)):
        raise _Unfit(f"holds {stored.type}, not integers")
    # A million shuffled rows take 0.1 s by the private index, 7 s by the fastest public way.
    rows, values = dataset._indices, stored.to_numpy()
    values = values if rows is None else values[rows.column(0).to_numpy()]
    if values.dtype.kind == "f":  # which has a place for what is missing
        if np.isnan(values).any():
            raise _Unfit("has rows without a value")
        values = values.astype(np.int64)
    return values
