"""Flags that say which images to train on, and which to evaluate on."""

import dataclasses
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset

from clce_hf.cli.image_arguments import ImageArguments
from clce_hf.cli.printing import printing
from clce_hf.cli.ranges import COUNT, INNER_SHARE, check_ranges
from clce_hf.data.class_counts import describe
from clce_hf.data.load import load_labeled_images, load_splits
from clce_hf.data.mixing import check_alphas
from clce_hf.data.sources import ImageFolders

_RANGES = {"train_val_split": INNER_SHARE, "max_train_samples": COUNT, "max_eval_samples": COUNT}


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
        check_ranges(self, _RANGES)
        if self.validation_dir is not None and self.train_dir is None:
            raise ValueError("validation_dir needs train_dir, whose classes it shares.")
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

    def warn_of_shared_images(self) -> None:
        """Warn where images that are trained on are evaluated on, too."""
        if self.train_dir is None or self.validation_dir is None:
            return
        train, validation = Path(self.train_dir).resolve(), Path(self.validation_dir).resolve()
        if train.is_relative_to(validation) or validation.is_relative_to(train):
            warnings.warn(
                f"--validation_dir {self.validation_dir} shares images with --train_dir "
                f"{self.train_dir}: what is measured on images of the training says nothing about "
                "others.",
                stacklevel=2,
            )

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


@dataclass
class ImagesArguments(LabeledImagesArguments):
    """Which images to embed; they need no labels."""

    data_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of images (CLASS/*.jpg or *.jpg), instead of a named data set."},
    )

    def load(self, cache_dir: str | None = None, token: str | None = None) -> Dataset:
        """Return the images of the split, with labels where they have them, and print which."""
        source = self.source
        if isinstance(source, ImageFolders):
            source = dataclasses.replace(source, may_lack_labels=True)
        images = load_labeled_images(
            source,
            self.preset,
            split=self.split,
            may_lack_labels=self.label_column_name is None,
            cache_dir=cache_dir,
            token=token,
        )
        _say_what_is_found(images=images)
        return images


def _say_what_is_found(**images: Dataset) -> None:
    if os.environ.get("RANK", "0") == "0":
        with printing():
            for name, dataset in images.items():
                print(f"{name}: {describe(dataset)}")
