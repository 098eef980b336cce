"""Load images and labels from the Hub, from folders, or as a benchmark of the paper splits them."""

import warnings
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets

from clce_hf.data.data_arguments import DataArguments, HubDataArguments, LabelledImagesArguments
from clce_hf.data.presets import BENCHMARKS, Part, class_split
from clce_hf.data.sources import (
    column_values,
    from_annotations,
    from_folders,
    from_hub,
    keep_classes,
    number_classes,
    standard_columns,
)


def load_splits(
    arguments: DataArguments, seed: int, cache_dir: str | None = None, token: str | None = None
) -> tuple[Dataset, Dataset]:
    """Return the training and the evaluation images, columns `image` and `labels`.

    The evaluation images are the validation split, else the test split, else a share of the
    training images, stratified by class; of a few-shot benchmark, whose other splits have other
    classes, always such a share.

    Args:
        arguments: with a `dataset_name`, a `train_dir` or a `benchmark`.
        seed: of the split and of the images drawn.
        cache_dir: where downloads are kept; None for the default place.
        token: for private and gated data sets; None for the one that is logged in.

    Raises:
        ValueError: if a column is missing, a class is only evaluated on, or the split cannot be
            made.
        OSError: if the data set or a folder cannot be had.
    """
    loaded = _load(arguments, cache_dir, token)
    preset = arguments.preset
    held_out = next((name for name in ("validation", "test") if name in loaded), None)
    if preset is not None and preset.is_few_shot:
        held_out = None
    used = ["train"] if held_out is None else ["train", held_out]
    parts = _prepare(loaded, used, arguments)
    train, evaluated = parts if held_out else _split(parts[0], arguments.train_val_split, seed)
    return (
        _at_most(train, arguments.max_train_samples, seed),
        _at_most(evaluated, arguments.max_eval_samples, seed),
    )


def load_benchmark(
    name: str, folder: str | None = None, cache_dir: str | None = None, token: str | None = None
) -> DatasetDict:
    """Return the splits of a benchmark of the paper, columns `image` and `labels`.

    They are `train` and what the benchmark has of `validation` and `test`, of the same classes; or,
    for few-shot episodes, `train`, `validation` and `novel`, of different classes, each numbered
    from 0.

    Args:
        name: in `clce_hf.data.presets.BENCHMARKS`.
        folder: of the images of a benchmark that is not on the Hub.
        cache_dir: where downloads are kept; None for the default place.
        token: for gated data sets; None for the one that is logged in.

    Raises:
        ValueError: for an unknown name, a missing column or split, or a folder where none belongs.
        OSError: if the data set or a folder cannot be had.
    """
    arguments = DataArguments(benchmark=name, benchmark_dir=folder)
    names = list(BENCHMARKS[name].splits)
    parts = _prepare(_load(arguments, cache_dir, token), names, arguments)
    return DatasetDict(zip(names, parts, strict=True))


def load_labelled_images(
    arguments: LabelledImagesArguments, cache_dir: str | None = None, token: str | None = None
) -> Dataset:
    """Return the images of one split or folder, columns `image` and `labels`.

    Args:
        arguments: that name some images.
        cache_dir: where downloads are kept; None for the default place.
        token: for private and gated data sets; None for the one that is logged in.

    Raises:
        ValueError: if the split or a column is missing.
        OSError: if the data set or the folder cannot be had.
    """
    if arguments.benchmark is not None:
        splits = load_benchmark(arguments.benchmark, arguments.benchmark_dir, cache_dir, token)
        return splits[_chosen(arguments.split, [str(name) for name in splits])]
    if arguments.dataset_name is not None:
        loaded = _from_hub(arguments, cache_dir, token)
    else:
        loaded = from_folders({"test": str(arguments.data_dir)}, cache_dir)
    images = loaded[_chosen(arguments.split, list(loaded))]
    columns = arguments.image_column_name, arguments.label_column_name
    return number_classes([standard_columns(images, *columns)], columns[1])[0]


def _from_hub(arguments: HubDataArguments, cache_dir: str | None, token: str | None) -> Any:
    name, config = str(arguments.dataset_name), arguments.dataset_config_name
    return from_hub(name, config, arguments.dataset_revision, cache_dir, token)


def _chosen(split: str | None, there: list[str]) -> str:
    if split is None:
        known = ("novel", "test", "validation", "train")
        split = next((name for name in known if name in there), there[0])
    if split not in there:
        raise ValueError(f"--split {split}: the data set has {', '.join(there)}.")
    return split


def _load(arguments: DataArguments, cache_dir: str | None, token: str | None) -> Any:
    """Load the splits, as they are, by our names."""
    preset = arguments.preset
    if arguments.dataset_name is not None:
        loaded = _from_hub(arguments, cache_dir, token)
        if preset is not None:
            return {name: _joined(loaded, part) for name, part in preset.splits.items()}
    elif preset is not None:
        files = {name: part.source for name, part in preset.splits.items()}
        root = Path(str(arguments.benchmark_dir))
        if preset.splits["train"].source.endswith(".json"):
            return from_annotations(root, files)
        return from_folders({name: str(root / file) for name, file in files.items()}, cache_dir)
    else:
        folders = {"train": arguments.train_dir, "validation": arguments.validation_dir}
        loaded = from_folders({name: f for name, f in folders.items() if f is not None}, cache_dir)
    if not isinstance(loaded, DatasetDict) or "train" not in loaded:
        raise ValueError(f"The data set has no split named 'train', but {list(loaded)}.")
    return loaded


def _joined(loaded: Any, part: Part) -> Dataset:
    sources = part.source.split("+")
    if missing := [name for name in sources if name not in loaded]:
        raise ValueError(f"The data set has no split named {missing[0]!r}, but {list(loaded)}.")
    return concatenate_datasets([loaded[name] for name in sources])


def _prepare(loaded: Any, names: list[str], arguments: DataArguments) -> list[Dataset]:
    """Return some of the splits with columns `image` and `labels`, the classes numbered."""
    image_column, label_column = str(arguments.image_column_name), str(arguments.label_column_name)
    parts = [standard_columns(loaded[name], image_column, label_column) for name in names]
    preset = arguments.preset
    if preset is None or not preset.is_few_shot:
        parts = number_classes(parts, label_column)
    else:
        parts = [number_classes([part], label_column)[0] for part in parts]
    if preset is None:
        return parts
    for i, name in enumerate(names):
        if preset.split_column is not None:
            ids = column_values(loaded[name], preset.split_column)
            parts[i] = keep_classes(parts[i], ids, class_split(str(arguments.benchmark), name))
        found, published = len(parts[i].features["labels"].names), preset.splits[name].classes
        if found != published:
            warnings.warn(
                f"{preset.title} was published with {published} classes in {name!r}, but these "
                f"images have {found}: results on them do not compare.",
                stacklevel=2,
            )
    return parts


def _split(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    try:
        parts = dataset.train_test_split(share, seed=seed, stratify_by_column="labels")
    except ValueError as error:
        raise ValueError(
            f"No share of {share} can be held out by class: {error} Give every class two images or "
            "more, change --train_val_split, or give --validation_dir."
        ) from error
    return parts["train"], parts["test"]


def _at_most(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    if size is None or size >= len(dataset):
        return dataset
    return dataset.shuffle(seed=seed).select(range(size))
