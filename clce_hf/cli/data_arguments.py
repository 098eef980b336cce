"""Flags that say which images to train on, and which to evaluate on."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from clce_hf.data.class_counts import describe
from clce_hf.data.load import load_labeled_images, load_splits
from clce_hf.data.mixing import check_alphas
from clce_hf.data.presets import PRESETS, Preset, find_preset
from clce_hf.data.sources import HubDataset, ImageFolders, Source

DIGITS = "digits"
"""The benchmark where no other images are named."""


@dataclass
class ImageArguments:
    """Where images are; flags win over what a benchmark says.

    Raises:
        ValueError: unless the flags name one place, or none for the digits.
    """

    dataset_name: str | None = field(
        default=None, metadata={"help": "Name of a data set on the Hub."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Its configuration, where it has several."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Its branch, tag or commit."}
    )
    benchmark: str | None = field(
        default=None,
        metadata={"help": f"A data set with known columns and splits: {', '.join(PRESETS)}."},
    )
    benchmark_dir: str | None = field(
        default=None, metadata={"help": "Its folder, where it is not on the Hub."}
    )
    image_column_name: str | None = field(
        default=None, metadata={"help": "Column that holds the images; by default image."}
    )
    label_column_name: str | None = field(
        default=None, metadata={"help": "Column that holds the labels; by default label."}
    )

    _folder_flag = ""

    def __post_init__(self) -> None:
        is_named = self.dataset_name is not None or self.benchmark is not None
        folders = self._folders()
        if folders and is_named:
            raise ValueError(f"Give {self._folder_flag}, or dataset_name or benchmark, not both.")
        if self.benchmark_dir is not None and self.benchmark is None:
            raise ValueError("benchmark_dir needs benchmark, whose images lie in it.")
        if not folders and not is_named:
            self.benchmark = DIGITS
        _ = self.source  # refuses a benchmark or a folder that does not fit

    def _folders(self) -> dict[str, str]:
        """Folders of images that the flags name, by split."""
        raise NotImplementedError

    @property
    def preset(self) -> Preset | None:
        """The benchmark that the images are of, or None."""
        return None if self.benchmark is None else find_preset(self.benchmark)

    @property
    def source(self) -> Source:
        """Where the images are."""
        preset = self.preset
        if preset is not None:
            source = preset.stored_in(self.benchmark_dir)
        elif self.dataset_name is not None:
            source = HubDataset(self.dataset_name)
        else:
            source = ImageFolders(self._folders())
        flags: dict[str, Any] = {
            "image_column": self.image_column_name,
            "label_column": self.label_column_name,
        }
        if isinstance(source, HubDataset):
            name = self.dataset_name or source.name
            if name != source.name:  # a mirror has other commits
                source = dataclasses.replace(source, name=name, config=None, revision=None)
            flags |= {"config": self.dataset_config_name, "revision": self.dataset_revision}
        elif self.dataset_name or self.dataset_config_name or self.dataset_revision:
            title = "A folder of images" if preset is None else preset.title
            raise ValueError(
                f"{title} is not on the Hub: leave out dataset_name, dataset_config_name and "
                "dataset_revision."
            )
        return dataclasses.replace(
            source, **{name: value for name, value in flags.items() if value is not None}
        )


@dataclass
class DataArguments(ImageArguments):
    """Which images to train and evaluate on."""

    train_dir: str | None = field(
        default=None, metadata={"help": "Folder of training images, CLASS/*.jpg."}
    )
    validation_dir: str | None = field(
        default=None, metadata={"help": "Folder of validation images, CLASS/*.jpg."}
    )
    train_val_split: float = field(
        default=0.15,
        metadata={"help": "Share of the training images to evaluate on, if there are no others."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on this many images at most, drawn at random."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on this many images at most, drawn at random."}
    )
    rand_augment: bool = field(
        default=False, metadata={"help": "Apply RandAugment to the training images, too."}
    )
    mixup_alpha: float = field(
        default=0.0,
        metadata={"help": "Mix training images by mixup with this parameter of Beta; 0: off."},
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata={"help": "The same by CutMix; with both, each batch is mixed by one of them."},
    )

    _folder_flag = "train_dir"

    def __post_init__(self) -> None:
        if not 0.0 < self.train_val_split < 1.0:
            raise ValueError(f"train_val_split must lie in (0, 1), got {self.train_val_split}.")
        if self.validation_dir is not None and self.train_dir is None:
            raise ValueError("validation_dir needs train_dir, whose classes it shares.")
        for name in ("max_train_samples", "max_eval_samples"):
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"{name} must be positive, got {size}.")
        check_alphas(self.mixup_alpha, self.cutmix_alpha)
        super().__post_init__()
        if self.rand_augment and not self.may_be_augmented:
            raise ValueError("--rand_augment is for photographs: name a data set, or leave it out.")

    def _folders(self) -> dict[str, str]:
        folders = {"train": self.train_dir, "validation": self.validation_dir}
        return {split: folder for split, folder in folders.items() if folder is not None}

    @property
    def may_be_augmented(self) -> bool:
        """Whether the images may be flipped and cropped in training."""
        return self.preset is None or self.preset.may_be_augmented

    def load(
        self, seed: int, cache_dir: str | None = None, token: str | None = None
    ) -> tuple[Dataset, Dataset]:
        """Return the training and the evaluation images, as `load_splits` does, and print which."""
        train, held_out = load_splits(
            self.source,
            self.preset,
            held_out_share=self.train_val_split,
            max_train_samples=self.max_train_samples,
            max_eval_samples=self.max_eval_samples,
            seed=seed,
            cache_dir=cache_dir,
            token=token,
        )
        _say_what_is_found(train=train, evaluation=held_out)
        return train, held_out


@dataclass
class LabeledImagesArguments(ImageArguments):
    """Which labeled images to evaluate a checkpoint on."""

    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of images (CLASS/*.jpg), instead of a named data set."},
    )
    split: str | None = field(
        default=None,
        metadata={"help": "By default novel, else test, else validation, else train."},
    )

    _folder_flag = "data_dir"

    def __post_init__(self) -> None:
        if self.split is not None and self.dataset_name is None and self.benchmark is None:
            raise ValueError("split needs dataset_name or benchmark.")
        super().__post_init__()

    def _folders(self) -> dict[str, str]:
        return {} if self.data_dir is None else {"test": self.data_dir}

    def load(self, cache_dir: str | None = None, token: str | None = None) -> Dataset:
        """Return the images of the split, as `load_labeled_images` does, and print which."""
        images = load_labeled_images(
            self.source, self.preset, split=self.split, cache_dir=cache_dir, token=token
        )
        _say_what_is_found(evaluation=images)
        return images


def _say_what_is_found(**images: Dataset) -> None:
    if os.environ.get("RANK", "0") == "0":
        for name, dataset in images.items():
            print(f"{name}: {describe(dataset)}", flush=True)
