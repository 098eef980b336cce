"""Load images and labels from any source, split as training and evaluation need them."""

import warnings

from datasets import Dataset, DatasetDict, concatenate_datasets

from clce_hf.data.classes import (
    column_values,
    has_labels,
    number_classes,
    select_classes,
    standard_columns,
)
from clce_hf.data.held_out import hold_out
from clce_hf.data.presets import Preset, find_preset
from clce_hf.data.sources import Source
from clce_hf.errors import ArgumentError


def load_splits(
    source: Source,
    preset: Preset | None = None,
    *,
    held_out_share: float = 0.15,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 0,
    cache_dir: str | None = None,
    token: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Return the training and the evaluation images, columns `image` and `labels`.

    The evaluation images are the validation split, else the test split, else a share of the
    training images, stratified by class; of a few-shot benchmark, whose other splits have other
    classes, always such a share.

    Args:
        source: where the images are.
        preset: how they are split, where that is known.
        held_out_share: of the training images, where there are no others to evaluate on.
        max_train_samples: training images to draw at random; None for all.
        max_eval_samples: the same for the evaluation images.
        seed: of the split and of the images drawn.
        cache_dir: where downloads are kept; None for the default place.
        token: for private and gated data sets; None for the one that is logged in.

    Raises:
        ValueError: if a column is missing, a class is only evaluated on, there is one class alone,
            or the split cannot be made; an `ArgumentError` where an argument is to blame.
        OSError: if the data set or a folder cannot be loaded.
    """
    stored = source.load(cache_dir, token)
    if preset is not None:
        stored = _by_our_names(stored, preset)
    if "train" not in stored:
        raise ValueError(
            f"The data set has no split 'train'; it has {', '.join(map(str, stored))}."
        )
    names = ["train"]
    if preset is None or not preset.is_few_shot:
        names += [name for name in ("validation", "test") if name in stored][:1]
    train, *others = _prepare(stored, names, source, preset).values()
    check_classes(train)
    if others:
        [held_out] = others
    else:
        train, held_out = hold_out(train, held_out_share, seed)
    return _at_most(train, max_train_samples, seed), _at_most(held_out, max_eval_samples, seed)


def load_benchmark(
    name: str, folder: str | None = None, cache_dir: str | None = None, token: str | None = None
) -> DatasetDict:
    """Return the splits of a benchmark of the paper, columns `image` and `labels`.

    They are `train` and what the benchmark has of `validation` and `test`, of the same classes; or,
    for few-shot episodes, `train`, `validation` and `novel`, of different classes, each numbered
    from 0.

    Args:
        name: in `clce_hf.data.presets.PRESETS`.
        folder: of the images of a benchmark that is not on the Hub.
        cache_dir: where downloads are kept; None for the default place.
        token: for gated data sets; None for the one that is logged in.

    Raises:
        ValueError: for an unknown name, a missing column or split, or a folder where none belongs.
        OSError: if the data set or a folder cannot be loaded.
    """
    preset = find_preset(name)
    source = preset.stored_in(folder)
    stored = _by_our_names(source.load(cache_dir, token), preset)
    return DatasetDict(_prepare(stored, list(preset.splits), source, preset).items())


def load_labeled_images(
    source: Source,
    preset: Preset | None = None,
    *,
    split: str | None = None,
    may_lack_labels: bool = False,
    cache_dir: str | None = None,
    token: str | None = None,
) -> Dataset:
    """Return the images of one split, columns `image` and `labels`.

    Args:
        source: where the images are.
        preset: how they are split, where that is known.
        split: its name; by default `novel`, else `test`, `validation`, `train` or the first.
        may_lack_labels: whether images without labels are returned without the column `labels`.
        cache_dir: where downloads are kept; None for the default place.
        token: for private and gated data sets; None for the one that is logged in.

    Raises:
        ValueError: if the split or a column is missing; an `ArgumentError` names it.
        OSError: if the data set or the folder cannot be loaded.
    """
    stored = source.load(cache_dir, token)
    if preset is not None:
        stored = _by_our_names(stored, preset)
    there = [str(name) for name in stored]
    if split is None:
        known = [name for name in ("novel", "test", "validation", "train") if name in there]
        split = (known or there)[0]
    if split not in there:
        raise ArgumentError(
            "split", f"split {split!r}: the data set has no such split, but {', '.join(there)}."
        )
    if preset is None and may_lack_labels and not has_labels(stored[split], source.label_column):
        return standard_columns(stored[split], source.image_column, None, split)
    # The training images of a preset number the classes of its other splits.
    names = [split] if preset is None else list(preset.splits)
    return _prepare(stored, names, source, preset)[split]


def _by_our_names(stored: DatasetDict, preset: Preset) -> DatasetDict:
    parts = preset.splits.items()
    return DatasetDict((name, _joined(stored, part.stored_as)) for name, part in parts)


def _joined(stored: DatasetDict, names: str) -> Dataset:
    if missing := [name for name in names.split("+") if name not in stored]:
        there = ", ".join(map(str, stored))
        raise ValueError(f"The data set has no split {missing[0]!r}; it has {there}.")
    return concatenate_datasets([stored[name] for name in names.split("+")])


def _prepare(
    stored: DatasetDict, names: list[str], source: Source, preset: Preset | None
) -> dict[str, Dataset]:
    """Return these splits with columns `image` and `labels`, the classes numbered."""
    columns = source.image_column, source.label_column
    splits = {name: standard_columns(stored[name], *columns, name) for name in names}
    if preset is None:
        return number_classes(splits, source.label_column)
    if preset.is_few_shot:
        for name, split in splits.items():
            splits |= number_classes({name: split}, source.label_column)
    else:
        splits = number_classes(splits, source.label_column)
    for name, split in splits.items():
        part = preset.splits[name]
        if part.ids is not None:
            ids = column_values(stored[name], str(preset.split_column))
            splits[name] = split = select_classes(split, ids, part.ids)
        num_classes = split.features["labels"].num_classes
        if num_classes != part.classes:
            warnings.warn(
                f"{preset.title} was published with {part.classes} classes in {name!r}, but these "
                f"images have {num_classes}: results on them do not compare.",
                stacklevel=2,
            )
    return splits


def check_classes(train: Dataset) -> None:
    """Raise ValueError if the images, whose `labels` are class ids, are of one class alone."""
    names = train.features["labels"].names
    if len(names) < 2:
        raise ValueError(
            f"All {len(train):,} training images are of one class, {names[0]!r}: there have to be "
            "two or more."
        )


def _at_most(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    if size is None or size >= len(dataset):
        return dataset
    return dataset.shuffle(seed=seed).select(range(size))
