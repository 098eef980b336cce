"""Fine-tune an image classifier as the command line asks for it."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub.utils import httpx
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    set_seed,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from clce_hf.accuracy import compute_accuracy
from clce_hf.config import CLCEConfig
from clce_hf.data import DataArguments, load_splits
from clce_hf.digits import load_digits_splits, small_vit
from clce_hf.trainer import CLCETrainer
from clce_hf.transforms import evaluation_rows, training_rows


class FinetuneError(Exception):
    """What the user asked for cannot be had; the message says why and what to do."""


@dataclass
class ModelArguments:
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
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    model_revision: str = field(
        default="main", metadata={"help": "Branch, tag or commit of the model."}
    )
    image_processor_name: str | None = field(
        default=None, metadata={"help": "Image processor, if it is not the model's own."}
    )
    token: str | None = field(
        default=None, metadata={"help": "Hub token; by default that of `hf auth login`."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that the model's repository brings."}
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Replace a head of another number of classes."}
    )


@dataclass(frozen=True)
class Outcome:
    """What a run came to: metrics of `Trainer.evaluate`, and seconds of training."""

    metrics: dict[str, float]
    seconds: float


def is_digits(model: ModelArguments, data: DataArguments) -> bool:
    """Whether nothing was asked for, so that a small ViT learns the bundled digits."""
    return not (model.model_name_or_path or model.model_type or data.dataset_name or data.train_dir)


def finetune(model_arguments: ModelArguments, data: DataArguments, args: CLCEConfig) -> Outcome:
    """Train, evaluate and save, as `args.do_train` and `args.do_eval` say.

    Raises:
        FinetuneError: if the data or the model cannot be loaded or do not fit each other.
    """
    _check_checkpoint(args.resume_from_checkpoint)
    set_seed(args.seed)
    trainer = _make_trainer(model_arguments, data, args)
    start = time.perf_counter()
    if args.do_train:
        result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        # As a call of Trainer's own: the upload is to wait for the metrics.
        trainer.save_model(_internal_call=True)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    seconds = time.perf_counter() - start
    metrics = {}
    if args.do_eval:
        metrics = trainer.evaluate()
        trainer.save_metrics("eval", metrics)
    if args.push_to_hub:
        _push(trainer, data)
    return Outcome(metrics, seconds)


def _push(trainer: CLCETrainer, data: DataArguments) -> None:
    try:
        trainer.push_to_hub(dataset_tags=data.dataset_name)
    except (httpx.HTTPError, OSError) as error:
        raise FinetuneError(
            f"The model is trained and saved in output_dir, but was not uploaded: {error}"
        ) from error


def _check_checkpoint(folder: str | None) -> None:
    if folder is not None and not Path(folder).is_dir():
        raise FinetuneError(f"--resume_from_checkpoint: there is no folder {folder!r}.")


def _make_trainer(
    model_arguments: ModelArguments, data: DataArguments, args: CLCEConfig
) -> CLCETrainer:
    digits = not (data.dataset_name or data.train_dir)
    try:
        if not digits:
            _check_is_named(model_arguments)
            train, held_out = load_splits(
                data, args.seed, model_arguments.cache_dir, model_arguments.token
            )
        else:
            train, held_out = load_digits_splits()
        names = train.features["labels"].names
        small = is_digits(model_arguments, data)
        model, processor = small_vit(names) if small else load_model(model_arguments, names)
        # Digits are no longer themselves when they are flipped or cropped.
        train_rows = evaluation_rows(processor) if digits else training_rows(processor)
        return CLCETrainer(
            model,
            args,
            train_dataset=train.with_transform(train_rows),
            eval_dataset=held_out.with_transform(evaluation_rows(processor)),
            processing_class=processor,
            compute_metrics=compute_accuracy,
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise FinetuneError(str(error)) from error


def _check_is_named(arguments: ModelArguments) -> None:
    if not arguments.model_name_or_path and arguments.model_type is None:
        raise ValueError(
            "A data set needs a model: give --model_name_or_path, for example "
            "google/vit-base-patch16-224-in21k."
        )
    if arguments.model_type is not None and not arguments.model_name_or_path:
        known = sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
        if arguments.model_type not in known:
            raise ValueError(
                f"--model_type {arguments.model_type}: Transformers classifies images with "
                f"{', '.join(known)}."
            )


def load_model(
    arguments: ModelArguments, names: list[str]
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load the model with a head for these classes, and its image processor."""
    name = arguments.model_name_or_path or None
    shared = {
        "cache_dir": arguments.cache_dir,
        "revision": arguments.model_revision,
        "token": arguments.token,
        "trust_remote_code": arguments.trust_remote_code,
    }
    labels = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }
    try:
        if name is None:
            config = AutoConfig.for_model(str(arguments.model_type), **labels)
            model = AutoModelForImageClassification.from_config(config)
        else:
            config = AutoConfig.from_pretrained(arguments.config_name or name, **labels, **shared)
            if hasattr(config, "label_names"):  # timm's, which would be saved for id2label
                config.label_names = names
            model = AutoModelForImageClassification.from_pretrained(
                name,
                config=config,
                ignore_mismatched_sizes=arguments.ignore_mismatched_sizes,
                **shared,
            )
        processor_name = arguments.image_processor_name or name
        if processor_name is None:
            raise ValueError("--model_type needs --image_processor_name.")
        return model, AutoImageProcessor.from_pretrained(processor_name, **shared)
    except OSError as error:
        raise ValueError(
            f"The model {name!r} could not be loaded: {error}\nIf it is gated or private, log in "
            "with `hf auth login` or pass --token."
        ) from error
    except RuntimeError as error:
        raise ValueError(
            f"The weights of {name!r} do not fit: {error}\nIf only the head is for another number "
            "of classes, pass --ignore_mismatched_sizes."
        ) from error
