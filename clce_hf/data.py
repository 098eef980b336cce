"""Load an image classification data set from the Hub or from folders of images."""

import glob
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, load_dataset


@dataclass
class DataArguments:
    """Which images to train and evaluate on."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Name of a data set on the Hub."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Its configuration, where it has several."}
    )
    train_dir: str | None = field(
        default=None, metadata={"help": "Folder of training images, CLASS/*.jpg."}
    )
    validation_dir: str | None = field(
        default=None, metadata={"help": "Folder of validation images, CLASS/*.jpg."}
    )
    train_val_split: float = field(
        default=0.15,
        metadata={
            "help": "Share of the training images to evaluate on, where there are no others."
        },
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on this many images at most, drawn at random."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on this many images at most, drawn at random."}
    )
    image_column_name: str = field(
        default="image", metadata={"help": "Column that holds the images."}
    )
    label_column_name: str = field(
        default="label", metadata={"help": "Column that holds the labels."}
    )

    def __post_init__(self) -> None:
        if not 0.0 < self.train_val_split < 1.0:
            raise ValueError(f"train_val_split must lie in (0, 1), got {self.train_val_split}.")
        if self.dataset_name is not None and (self.train_dir or self.validation_dir):
            raise ValueError("Give either dataset_name or train_dir and validation_dir, not both.")
        if self.validation_dir is not None and self.train_dir is None:
            raise ValueError("validation_dir needs train_dir, whose classes it shares.")
        for name in ("max_train_samples", "max_eval_samples"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} must be positive, got {size}.")


def load_splits(
    arguments: DataArguments, seed: int, cache_dir: str | None = None, token: str | None = None
) -> tuple[Dataset, Dataset]:
    """Return the training and the evaluation images, columns `image` and `labels`.

    The evaluation images are the validation split, else the test split, else a share of the
    training images, stratified by class.

    Args:
        arguments: with a `dataset_name` or a `train_dir`.
        seed: of the split and of the images drawn.
        cache_dir: where downloads are kept; None for the default place.
        token: for private and gated data sets; None for the one that is logged in.

    Raises:
        ValueError: if a column is missing, a class is only evaluated on, or the split cannot be
            made.
        OSError: if the data set or a folder cannot be had.
    """
    if arguments.dataset_name is not None:
        splits = _from_hub(arguments, cache_dir, token)
    else:
        splits = _from_folders(arguments, cache_dir)
    if not isinstance(splits, DatasetDict) or "train" not in splits:
        raise ValueError(f"The data set has no split named 'train', but {list(splits)}.")
    held_out = next((name for name in ("validation", "test") if name in splits), None)
    used = ["train"] if held_out is None else ["train", held_out]
    parts = _class_ids([_standard_columns(splits[name], arguments) for name in used], arguments)
    train, evaluated = parts if held_out else _split(parts[0], arguments.train_val_split, seed)
    return (
        _at_most(train, arguments.max_train_samples, seed),
        _at_most(evaluated, arguments.max_eval_samples, seed),
    )


def _from_hub(arguments: DataArguments, cache_dir: str | None, token: str | None) -> Any:
    try:
        return load_dataset(
            str(arguments.dataset_name),
            arguments.dataset_config_name,
            cache_dir=cache_dir,
            token=token,
        )
    except (OSError, RuntimeError) as error:  # datasets refuses loading scripts as RuntimeError
        raise OSError(
            f"The data set {arguments.dataset_name!r} could not be loaded: {error}\nIf it is gated "
            "or private, ask for access on its page, then log in with `hf auth login` or pass "
            "--token."
        ) from error


def _from_folders(arguments: DataArguments, cache_dir: str | None) -> Any:
    folders = {"train": arguments.train_dir, "validation": arguments.validation_dir}
    files = {}
    for split, folder in folders.items():
        if folder is None:
            continue
        if not Path(folder).is_dir():
            raise OSError(f"There is no folder {folder!r}.")
        if not any(file.is_file() for file in Path(folder).rglob("*")):
            raise OSError(f"The folder {folder!r} holds no files: images lie in it as CLASS/*.jpg.")
        # The pattern must not read brackets in the folder's name, nor a slash at its end.
        files[split] = f"{glob.escape(str(Path(folder)))}/**"
    # By default labels are left out where the two folders lie at different depths.
    return load_dataset("imagefolder", data_files=files, cache_dir=cache_dir, drop_labels=False)


def _standard_columns(dataset: Dataset, arguments: DataArguments) -> Dataset:
    """Keep the images and labels alone, under one pair of names."""
    columns = {
        "image_column_name": (arguments.image_column_name, "image"),
        "label_column_name": (arguments.label_column_name, "labels"),
    }
    for flag, (name, _) in columns.items():
        if name not in dataset.column_names:
            raise ValueError(
                f"--{flag} {name}: the data set has no such column, but "
                f"{', '.join(dataset.column_names)}."
            )
    dataset = dataset.select_columns([name for name, _ in columns.values()])
    dataset = dataset.rename_columns({name: new for name, new in columns.values() if name != new})
    if not isinstance(dataset.features["image"], Image):
        dataset = dataset.cast_column("image", Image())
    return dataset


def _class_ids(parts: list[Dataset], arguments: DataArguments) -> list[Dataset]:
    """Turn labels into ids of the classes of the first part, the training images.

    Encoding each part by its own classes would number them differently where one lacks a class.
    """
    feature = parts[0].features["labels"]
    if isinstance(feature, ClassLabel):
        return parts
    flag = f"--label_column_name {arguments.label_column_name}"
    if not isinstance(feature, Value):
        raise ValueError(f"{flag}: one class an image is needed, but the column holds {feature}.")
    classes = [part.unique("labels") for part in parts]
    if any(None in found for found in classes):
        raise ValueError(f"{flag}: some images have no label.")
    if unseen := {value for found in classes for value in found} - set(classes[0]):
        raise ValueError(
            f"{flag}: the images to evaluate on have classes that are not trained: "
            f"{', '.join(sorted(map(str, unseen)))}."
        )
    ids = {value: i for i, value in enumerate(sorted(classes[0]))}
    encoded = ClassLabel(names=[str(value) for value in ids])
    return [
        part.select_columns("image").add_column(
            "labels", [ids[value] for value in part["labels"]], feature=encoded
        )
        for part in parts
    ]


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
