"""The command line's arguments that say which images to train on, and which to evaluate on."""

from dataclasses import dataclass, field

from clce_hf.data.mixing import check_alphas
from clce_hf.data.presets import BENCHMARKS, Benchmark


@dataclass
class HubDataArguments:
    """Which data set of the Hub."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Name of a data set on the Hub."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Its configuration, where it has several."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Its branch, tag or commit."}
    )


@dataclass
class DataArguments(HubDataArguments):
    """Which images to train and evaluate on."""

    benchmark: str | None = field(
        default=None,
        metadata={
            "help": "A benchmark of the paper, for data set, columns and splits: "
            f"{', '.join(BENCHMARKS)}."
        },
    )
    benchmark_dir: str | None = field(
        default=None, metadata={"help": "Its folder, where it is not on the Hub."}
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
    image_column_name: str | None = field(
        default=None, metadata={"help": "Column that holds the images; by default image."}
    )
    label_column_name: str | None = field(
        default=None, metadata={"help": "Column that holds the labels; by default label."}
    )
    rand_augment: bool = field(
        default=False, metadata={"help": "Apply RandAugment to the training images, too."}
    )
    mixup_alpha: float = field(
        default=0.0,
        metadata={"help": "Mix training images by mixup, with this parameter of Beta; 0 does not."},
    )
    cutmix_alpha: float = field(
        default=0.0,
        metadata={"help": "The same by CutMix; with both, each batch is mixed by one of them."},
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
        check_alphas(self.mixup_alpha, self.cutmix_alpha)
        if self.benchmark is not None and self.benchmark not in BENCHMARKS:
            raise ValueError(
                f"benchmark is one of {', '.join(BENCHMARKS)}, got {self.benchmark!r}."
            )
        if self.preset is not None:
            self._take_from(self.preset)
        elif self.benchmark_dir is not None:
            raise ValueError("benchmark_dir needs benchmark, whose images lie in it.")
        self.image_column_name = self.image_column_name or "image"
        self.label_column_name = self.label_column_name or "label"

    @property
    def is_named(self) -> bool:
        """Whether any images are asked for."""
        return bool(self.dataset_name or self.train_dir or self.benchmark)

    @property
    def preset(self) -> Benchmark | None:
        """The benchmark that is asked for."""
        return None if self.benchmark is None else BENCHMARKS[self.benchmark]

    def _take_from(self, preset: Benchmark) -> None:
        """Take what is not said otherwise from a benchmark."""
        if self.train_dir is not None:
            raise ValueError("Give either benchmark or train_dir and validation_dir, not both.")
        if preset.dataset is None and (self.benchmark_dir is None or self.dataset_name is not None):
            raise ValueError(
                f"{preset.title} is not on the Hub: give benchmark_dir, a folder with "
                f"{preset.layout}."
            )
        if preset.dataset is not None and self.benchmark_dir is not None:
            raise ValueError(f"{preset.title} is on the Hub: leave benchmark_dir out.")
        if self.dataset_name in (None, preset.dataset):
            self.dataset_name = preset.dataset
            self.dataset_config_name = self.dataset_config_name or preset.config
            self.dataset_revision = self.dataset_revision or preset.revision
        self.image_column_name = self.image_column_name or preset.image_column
        self.label_column_name = self.label_column_name or preset.label_column


@dataclass
class LabelledImagesArguments(HubDataArguments):
    """Which labelled images to evaluate a checkpoint on."""

    benchmark: str | None = field(
        default=None,
        metadata={"help": f"A benchmark of the paper instead: {', '.join(BENCHMARKS)}."},
    )
    benchmark_dir: str | None = field(
        default=None, metadata={"help": "Its folder, where it is not on the Hub."}
    )
    data_dir: str | None = field(
        default=None, metadata={"help": "Folder of images, CLASS/*.jpg, instead."}
    )
    split: str | None = field(
        default=None,
        metadata={"help": "By default novel, else test, else validation, else train."},
    )
    image_column_name: str = field(
        default="image", metadata={"help": "Column that holds the images."}
    )
    label_column_name: str = field(
        default="label", metadata={"help": "Column that holds the labels."}
    )

    def __post_init__(self) -> None:
        sources = (self.dataset_name, self.benchmark, self.data_dir)
        if sum(source is not None for source in sources) > 1:
            raise ValueError("Give one of dataset_name, benchmark and data_dir.")
        if self.split is not None and self.dataset_name is None and self.benchmark is None:
            raise ValueError("split is one of dataset_name or benchmark: give either.")
        if self.benchmark is not None and self.benchmark not in BENCHMARKS:
            raise ValueError(
                f"benchmark is one of {', '.join(BENCHMARKS)}, got {self.benchmark!r}."
            )

    @property
    def is_named(self) -> bool:
        """Whether any images are asked for."""
        return bool(self.dataset_name or self.benchmark or self.data_dir)
