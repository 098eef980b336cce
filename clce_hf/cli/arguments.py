"""Flags that say which model to train and how; those of the images are in `data_arguments.py`."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from clce_hf.cli.checks import check_flags
from clce_hf.cli.ranges import DECAY, NOT_NEGATIVE, OF_TRAINING, check_ranges
from clce_hf.config import CLCEConfig
from clce_hf.errors import ArgumentError
from clce_hf.models.pretrained import HubOptions, create_model, load_model

Calibrate = Literal["auto", "true", "false"]
HeadStart = Literal["auto", "class_means", "none"]


@dataclass
class HubArguments:
    """How to reach a model on the Hub."""

    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    model_revision: str = field(
        default="main", metadata={"help": "Branch, tag or commit of the model."}
    )
    token: str | None = field(
        default=None, metadata={"help": "Hub token; by default that of `hf auth login`."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that the model's repository brings."}
    )

    @property
    def hub(self) -> HubOptions:
        """The options by the names that loaders have for them."""
        return {
            "cache_dir": self.cache_dir,
            "revision": self.model_revision,
            "token": self.token,
            "trust_remote_code": self.trust_remote_code,
        }


@dataclass
class ModelArguments(HubArguments):
    """Which model to start from."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model on the Hub, or a folder with a checkpoint."}
    )
    model_type: str | None = field(
        default=None,
        metadata={"help": "Train an untrained model of this type, such as vit, instead."},
    )
    config_name: str | None = field(
        default=None, metadata={"help": "Config, if it is not the model's own."}
    )
    image_processor_name: str | None = field(
        default=None, metadata={"help": "Image processor, if it is not the model's own."}
    )
    drop_path_rate: float | None = field(
        default=None,
        metadata={"help": "Share of images that skip a residual block in training."},
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Replace a head of another number of classes."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, {"drop_path_rate": DECAY})
        if self.model_name_or_path or self.model_type is None:
            return
        known = sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
        if self.model_type not in known:
            raise ArgumentError(
                "model_type",
                f"got {self.model_type}, but Transformers has {', '.join(known)}.",
            )
        if self.image_processor_name is None:
            raise ArgumentError("model_type", "it needs an --image_processor_name, too.")

    @property
    def is_named(self) -> bool:
        """Whether any model is named."""
        return bool(self.model_name_or_path or self.model_type)

    def check_is_named(self) -> None:
        """Raise `ArgumentError` unless a model is named."""
        if not self.is_named:
            raise ArgumentError(
                "model_name_or_path",
                "a data set needs a model: name one, for example "
                "google/vit-base-patch16-224-in21k.",
            )

    def load(self, names: list[str]) -> tuple[PreTrainedModel, BaseImageProcessor, set[str]]:
        """Return the model with a head for these classes, its processor, and names of new weights.

        A model that is untrained as a whole has no new weights among older ones.

        Raises:
            ValueError: if no model is named, or it cannot be loaded.
        """
        self.check_is_named()
        if self.model_name_or_path:
            return load_model(
                self.model_name_or_path,
                names,
                config_name=self.config_name,
                processor_name=self.image_processor_name,
                drop_path_rate=self.drop_path_rate,
                ignore_mismatched_sizes=self.ignore_mismatched_sizes,
                **self.hub,
            )
        model, processor = create_model(
            str(self.model_type),
            str(self.image_processor_name),
            names,
            drop_path_rate=self.drop_path_rate,
            **self.hub,
        )
        return model, processor, set()


@dataclass
class TrainArguments(CLCEConfig):
    """`CLCEConfig` with defaults for fine-tuning from the command line."""

    output_dir: str | None = "runs/clce"
    do_train: bool = True
    do_eval: bool = True
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    logging_strategy: str = "epoch"
    # A transform makes the pixels, and needs the columns that the model does not know.
    remove_unused_columns: bool = False
    # Trainer warns of pinning without an accelerator.
    dataloader_pin_memory: bool = torch.accelerator.is_available()
    head_init: HeadStart | None = field(  # pyrefly: ignore[bad-override]
        default="auto",
        metadata={
            "help": "Start the classification layer from class means of the embeddings; auto does "
            "where a pretrained model got a new one."
        },
    )
    logit_adjustment: float = field(
        default=0.0,
        metadata={
            "help": "Scale of the log frequencies of the classes that are added to the logits in "
            "training, for rare classes; 1 is the paper's, 0 leaves them out."
        },
    )
    card_pictures: bool = field(
        default=False,
        metadata={"help": "With --push_to_hub, draw a training curve and a map for the card."},
    )

    calibrate: Calibrate = field(
        default="auto",
        metadata={
            "help": "After training, fold a temperature into the classification layer that is "
            "fitted on the held-out images; auto does where they are enough."
        },
    )

    def __post_init__(self) -> None:
        check_ranges(self, {**OF_TRAINING, "logit_adjustment": NOT_NEGATIVE})
        # What auto comes to is known when the model is loaded, and put in its place then.
        chosen, self.head_init = self.head_init, None
        super().__post_init__()
        self.head_init = chosen
        check_flags(self)


@dataclass
class SmallViTArguments(TrainArguments):
    """Defaults that train the small ViT from scratch on the digits, in seconds."""

    num_train_epochs: float = 30.0
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 500
    learning_rate: float = 1e-3
    warmup_steps: float = 0.1
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    eval_strategy: str = "no"
    save_strategy: str = "no"
    logging_strategy: str = "no"
