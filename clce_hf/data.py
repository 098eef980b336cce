"""Load an image classification data set from the Hub or from folders of images."""

from dataclasses import dataclass, field
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, load_dataset


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
        ValueError: if a column is missing, or the split cannot be made.
        OSError: if the data set cannot be had.
    """
    if arguments.dataset_name is not None:
        splits = _from_hub(arguments, cache_dir, token)
    else:
        folders = {"train": arguments.train_dir, "validation": arguments.validation_dir}
        files = {split: f"{folder}/**" for split, folder in folders.items() if folder}
        splits = load_dataset("imagefolder", data_files=files, cache_dir=cache_dir)
    if not isinstance(splits, DatasetDict) or "train" not in splits:
        raise ValueError(f"The data set has no split named 'train', but {list(splits)}.")
    splits = DatasetDict({name: _standard_columns(splits[name], arguments) for name in splits})
    held_out = next((name for name in ("validation", "test") if name in splits), None)
    if held_out is None:
        splits = splits["train"].train_test_split(
            arguments.train_val_split, seed=seed, stratify_by_column="labels"
        )
        held_out = "test"
    return (
        _at_most(splits["train"], arguments.max_train_samples, seed),
        _at_most(splits[held_out], arguments.max_eval_samples, seed),
    )


def _from_hub(arguments: DataArguments, cache_dir: str | None, token: str | None) -> Any:
    try:
        return load_dataset(
            str(arguments.dataset_name),
            arguments.dataset_config_name,
            cache_dir=cache_dir,
            token=token,
        )
    except OSError as error:
        raise OSError(
            f"The data set {arguments.dataset_name!r} could not be loaded: {error}\nIf it is gated "
            "or private, ask for access on its page, then log in with `hf auth login` or pass "
            "--token."
        ) from error


def _standard_columns(dataset: Dataset, arguments: DataArguments) -> Dataset:
    """Keep the images and labels alone, under one pair of names, the labels as class ids."""
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
    if not isinstance(dataset.features["labels"], ClassLabel):
        dataset = dataset.class_encode_column("labels")
    return dataset


def _at_most(dataset: Dataset, size: int | None, seed: int) -> Dataset:
    if size is None or size >= len(dataset):
        return dataset
    return dataset.shuffle(seed=seed).select(range(size))
