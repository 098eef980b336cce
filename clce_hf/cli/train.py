"""Fine-tune an image classifier as the command line asks for it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from huggingface_hub.utils import httpx
from transformers import set_seed
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_utils import get_last_checkpoint

from clce_hf.config import CLCEConfig
from clce_hf.data.data_arguments import DataArguments
from clce_hf.data.digits import load_digits_splits, small_vit
from clce_hf.data.load import load_splits
from clce_hf.data.mixing import mix_training
from clce_hf.data.readable_images import Rows, with_images
from clce_hf.data.transforms import evaluation_rows, training_rows
from clce_hf.errors import UserError
from clce_hf.evaluation.hf_metrics import compute_accuracy
from clce_hf.models.pretrained import (
    ModelArguments,
    check_has_classes,
    check_is_named,
    load_model,
)
from clce_hf.trainer import CLCETrainer


@dataclass(frozen=True)
class Outcome:
    """What a run came to: metrics of `Trainer.evaluate`, and seconds of training."""

    metrics: dict[str, float]
    seconds: float


def is_digits(model: ModelArguments, data: DataArguments) -> bool:
    """Whether nothing was asked for, so that a small ViT learns the bundled digits."""
    return not (model.model_name_or_path or model.model_type or data.is_named)


def finetune(model_arguments: ModelArguments, data: DataArguments, args: CLCEConfig) -> Outcome:
    """Train, evaluate and save, as `args.do_train` and `args.do_eval` say.

    Raises:
        UserError: if the data or the model cannot be loaded or do not fit each other.
    """
    checkpoint = _checkpoint(args)
    set_seed(args.seed)
    images = load_images(model_arguments, data, args.seed)
    trainer = make_trainer(model_arguments, data, args, images)
    start = time.perf_counter()
    if args.do_train:
        result = trainer.train(resume_from_checkpoint=checkpoint)
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
        raise UserError(
            f"The model is trained and saved in output_dir, but was not uploaded: {error}"
        ) from error


def _checkpoint(args: CLCEConfig) -> str | None:
    """Folder to resume from: the one that is named, or for `true` the last one of output_dir."""
    asked = args.resume_from_checkpoint
    if str(asked).lower() == "true":
        folder = str(args.output_dir)
        found = get_last_checkpoint(folder) if Path(folder).is_dir() else None
        if found is None:
            raise UserError(
                f"--resume_from_checkpoint true: there is no checkpoint in {folder!r}: leave it "
                "out to train from the start."
            )
        return found
    if asked is not None and not Path(asked).is_dir():
        raise UserError(
            f"--resume_from_checkpoint: there is no folder {asked!r}. Name one such as "
            "OUTPUT_DIR/checkpoint-500, or true for the last one of output_dir."
        )
    return asked


Images = tuple[Dataset, Dataset]
"""Images to train on and to evaluate on, columns `image` and `labels`."""


def load_images(model_arguments: ModelArguments, data: DataArguments, seed: int) -> Images:
    """Load what the flags name, or the digits where they name no data set.

    Raises:
        UserError: if it cannot be had.
    """
    try:
        if not data.is_named:
            return load_digits_splits()
        check_is_named(model_arguments)
        return load_splits(data, seed, model_arguments.cache_dir, model_arguments.token)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error


def make_trainer(
    model_arguments: ModelArguments, data: DataArguments, args: CLCEConfig, images: Images
) -> CLCETrainer:
    """Load the model with a head for the classes of the images, and make its trainer.

    Raises:
        UserError: if the model cannot be had, or does not fit the images or the arguments.
    """
    train, held_out = images
    names = train.features["labels"].names
    try:
        if not is_digits(model_arguments, data):
            if not args.do_train:
                check_has_classes(model_arguments, names)
            model, processor = load_model(model_arguments, names)
        elif model_arguments.drop_path_rate is None:
            model, processor = small_vit(names)
        else:
            raise ValueError("--drop_path_rate: the small ViT has no drop path: leave it out.")
        train_rows, collator = mix_training(
            _training_rows(processor, data), len(names), data.mixup_alpha, data.cutmix_alpha
        )
        return CLCETrainer(
            model,
            args,
            data_collator=collator,
            train_dataset=with_images(train, train_rows),
            eval_dataset=with_images(held_out, evaluation_rows(processor)),
            processing_class=processor,
            compute_metrics=compute_accuracy,
        )
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise UserError(str(error)) from error


def _training_rows(processor: BaseImageProcessor, data: DataArguments) -> Callable[[Rows], Rows]:
    if data.is_named:
        return training_rows(processor, data.rand_augment)
    if data.rand_augment:
        raise ValueError("--rand_augment is for photographs: name a data set, or leave it out.")
    # Digits are no longer themselves when they are flipped or cropped.
    return evaluation_rows(processor)
