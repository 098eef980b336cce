"""Refuse flags with which a run cannot work, before hours of it, naming the flag."""

import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel, Trainer, TrainingArguments, get_scheduler
from transformers.integrations import get_available_reporting_integrations

from clce_hf.errors import ArgumentError
from clce_hf.evaluation.suite import TOP_5

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", TOP_5, "loss", "contrastive_loss")
"""What a run of the command line can choose its best model by."""

_NEVER_LISTED = {"azure_ml", "flyte"}
"""Integrations that Transformers does not list, though they may be installed."""


def check_flags(args: TrainingArguments) -> None:
    """Raise `ArgumentError` for a value that no run of the command line can work with."""
    if args.remove_unused_columns:
        raise ArgumentError(
            "remove_unused_columns",
            "pixels are made of the column of images, which would be removed: leave it at false.",
        )
    if args.label_names is not None and "labels" not in args.label_names:
        raise ArgumentError(
            "label_names",
            "here labels are called labels, whatever their column is: leave it out, and name the "
            "column in --label_column_name.",
        )
    if not args.eval_do_concat_batches:
        raise ArgumentError(
            "eval_do_concat_batches", "accuracy is counted over all batches: leave it at true."
        )
    metric = args.metric_for_best_model
    if metric is not None and metric.removeprefix("eval_") not in METRICS:
        raise ArgumentError(
            "metric_for_best_model", f"there is no metric {metric!r}, but {', '.join(METRICS)}."
        )
    there = get_available_reporting_integrations()
    for name in args.report_to or ():
        if name not in {*there, *_NEVER_LISTED}:
            raise ArgumentError(
                "report_to",
                f"{name!r} is not installed, or unknown to Transformers: install it, or name "
                f"{', '.join(there)} or none.",
            )
    if args.dataloader_persistent_workers and args.dataloader_num_workers == 0:
        raise ArgumentError(
            "dataloader_persistent_workers", "there are none: set dataloader_num_workers, too."
        )


def check_has_top_5(flag: str, metric: str | None, num_classes: int) -> None:
    """Raise `ArgumentError` where a flag names the top-5 accuracy of five classes or fewer."""
    if metric is not None and metric.removeprefix("eval_") == TOP_5 and num_classes <= 5:
        raise ArgumentError(
            flag, f"{TOP_5} is measured of more than 5 classes, and there are {num_classes}."
        )


def check_left_out(args: TrainingArguments, why: str) -> None:
    """Raise `ArgumentError` for a flag of `train` that another command has no use for.

    Args:
        args: of the command.
        why: what it does instead.
    """
    for name in ("do_train", "do_eval", "resume_from_checkpoint", "push_to_hub", "calibrate"):
        if getattr(args, name) != type(args).__dataclass_fields__[name].default:
            raise ArgumentError(name, f"{why}: leave it out.")


def check_can_write(folder: str | None, flag: str = "output_dir") -> None:
    """Make the folder of a run; raise `ArgumentError` where no file can be written there."""
    if not folder:
        raise ArgumentError(flag, "name a folder.")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ArgumentError(flag, f"nothing can be written there: {error}.") from error


def check_optimizer(args: TrainingArguments, model: PreTrainedModel) -> None:
    """Raise `ArgumentError` for an optimizer or a schedule that cannot be made."""
    try:
        Trainer.get_optimizer_cls_and_kwargs(args, model)
    except (ValueError, ImportError) as error:
        raise ArgumentError("optim_args" if args.optim_args else "optim", str(error)) from error
    stand_in = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    try:
        get_scheduler(
            args.lr_scheduler_type,
            stand_in,
            num_warmup_steps=1,
            num_training_steps=10,
            scheduler_specific_kwargs=cast(Any, args.lr_scheduler_kwargs),
        )
    except (TypeError, ValueError) as error:
        raise ArgumentError("lr_scheduler_kwargs", str(error)) from error


def check_fills_a_batch(args: TrainingArguments, images: int) -> None:
    """Raise `ArgumentError` where every batch would be dropped.

    Args:
        args: of the run.
        images: to train on.
    """
    size = args.train_batch_size * args.world_size
    if args.dataloader_drop_last and images < size:
        raise ArgumentError(
            "dataloader_drop_last",
            f"the {images} training images do not fill one batch of {size}, and would all be "
            "left out: lower per_device_train_batch_size, or set it to false.",
        )
