"""`clce-hf train`: load images and a model, fine-tune it, and save it."""

import time
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedModel, set_seed
from transformers.image_processing_utils import BaseImageProcessor

from clce_hf.cli.arguments import ModelArguments, TrainArguments
from clce_hf.cli.calibrating import Calibrated, calibrate, check_calibrate
from clce_hf.cli.checks import (
    check_can_write,
    check_fills_a_batch,
    check_has_top_5,
    check_optimizer,
)
from clce_hf.cli.data_arguments import DataArguments
from clce_hf.cli.errors import before_traceback, user_errors
from clce_hf.cli.head_init import head_init
from clce_hf.cli.parsing import uses_small_vit
from clce_hf.cli.results import forget_results
from clce_hf.cli.resuming import checkpoint_of, how_far
from clce_hf.config import CLCEConfig
from clce_hf.data.class_counts import class_counts
from clce_hf.data.mixing import mix_training
from clce_hf.data.sources import HubDataset
from clce_hf.data.transforms import evaluation_rows, training_rows, with_images
from clce_hf.errors import ArgumentError, UserError
from clce_hf.evaluation.compute_accuracies import compute_accuracies
from clce_hf.loss.logit_adjustment import LogitAdjustedLoss
from clce_hf.models.class_names import check_same_classes
from clce_hf.models.logits import logits_of
from clce_hf.models.pretrained import load_class_names
from clce_hf.models.small_vit import small_vit
from clce_hf.reports.extra import check_can_draw
from clce_hf.trainer import CLCETrainer


@dataclass(frozen=True)
class Outcome:
    """Metrics of `Trainer.evaluate` after a run, its seconds of training, and the calibration."""

    metrics: dict[str, float]
    seconds: float
    calibrated: Calibrated


def finetune(model: ModelArguments, data: DataArguments, args: TrainArguments) -> Outcome:
    """Train, save, evaluate, and calibrate what was evaluated, as the arguments say.

    Raises:
        UserError: if the data or the model cannot be loaded or do not fit each other, or if the
            pictures of the card cannot be drawn.
    """
    with user_errors("preparing the run"):
        if args.push_to_hub and args.card_pictures:
            check_can_draw()
        checkpoint = checkpoint_of(args)
        check_can_write(args.output_dir)
    if args.do_train:
        data.warn_of_shared_images()
    set_seed(args.seed)
    images = load_images(model, data, args.seed)
    trainer = make_trainer(model, data, args, images)
    check_calibrate(args, trainer, images[1])
    start = time.perf_counter()
    if args.do_train:
        with before_traceback(lambda: how_far(trainer)):
            result = trainer.train(resume_from_checkpoint=checkpoint)
        with before_traceback(lambda: f"saving the trained model in {args.output_dir}"):
            # As a call of Trainer's own: the upload is to wait for the metrics.
            trainer.save_model(_internal_call=True)
            if trainer.is_world_process_zero():
                forget_results(Path(str(args.output_dir)), "train", "eval", "calibration")
            trainer.save_metrics("train", result.metrics)
            trainer.save_state()
    seconds = time.perf_counter() - start
    metrics = {}
    if args.do_eval:
        with before_traceback(lambda: "evaluating the model"):
            metrics = trainer.evaluate()
            trainer.save_metrics("eval", metrics)
    calibrated = calibrate(args, trainer)
    if args.push_to_hub:
        _push(trainer, data, args.card_pictures)
    return Outcome(metrics, seconds, calibrated)


def _push(trainer: CLCETrainer, data: DataArguments, pictures: bool) -> None:
    source = data.source
    name = source.name if isinstance(source, HubDataset) else None
    try:
        trainer.push_to_hub(dataset_tags=name, pictures=pictures)
    # Of a dropped connection, the client raises the error of the HTTP library that it happens to
    # use, httpx or httpx2; and whatever the error is, nothing is lost.
    except Exception as error:
        raise UserError(
            f"The model is trained and saved in output_dir, but was not uploaded: {error}"
        ) from error


Images = tuple[Dataset, Dataset]
"""Images to train on and to evaluate on, columns `image` and `labels`."""


def load_images(model: ModelArguments, data: DataArguments, seed: int) -> Images:
    """Load the images that the flags name, if there is a model for them.

    Raises:
        UserError: if no model is named for them, or they cannot be loaded.
    """
    with user_errors(f"loading the images of {data.in_words}"):
        if not uses_small_vit(model, data):
            model.check_is_named()
        return data.load(seed, model.cache_dir, model.token)


def make_trainer(
    model_arguments: ModelArguments, data: DataArguments, args: TrainArguments, images: Images
) -> CLCETrainer:
    """Load the model with a head for the classes of the images, and make its trainer.

    `args.head_init` becomes what it comes to for this model.

    Raises:
        UserError: if the model cannot be loaded, or does not fit the images or the arguments.
    """
    train, held_out = images
    names = train.features["labels"].names
    with user_errors("loading the model"):
        model, processor, new_weights = _load_model(model_arguments, data, args, names)
    with user_errors("preparing the training"):
        check_has_top_5("metric_for_best_model", args.metric_for_best_model, len(names))
        if args.do_train:
            check_fills_a_batch(args, len(train))
            check_optimizer(args, model)
        args.head_init = head_init(args, model, new_weights)
        to_pixels = evaluation_rows(processor)
        train_rows, collator = mix_training(
            training_rows(processor, data.rand_augment) if data.may_be_augmented else to_pixels,
            len(names),
            data.mixup_alpha,
            data.cutmix_alpha,
        )
        return CLCETrainer(
            model,
            args,
            data_collator=collator,
            train_dataset=with_images(train, train_rows),
            eval_dataset=with_images(held_out, to_pixels),
            processing_class=processor,
            compute_loss_func=_loss(args, train),
            compute_metrics=compute_accuracies,
            # Or the hidden states of all images would be held, where the checkpoint asks for them.
            preprocess_logits_for_metrics=lambda outputs, _: logits_of(outputs),
        )


def _loss(args: TrainArguments, train: Dataset) -> LogitAdjustedLoss | None:
    """The logit-adjusted loss of the images to train on; None for cross-entropy as it is."""
    if args.logit_adjustment == 0:
        return None
    counts = list(class_counts(train).values())
    return LogitAdjustedLoss(counts, args.logit_adjustment, args.label_smoothing_factor)


def _load_model(
    model: ModelArguments, data: DataArguments, args: CLCEConfig, names: list[str]
) -> tuple[PreTrainedModel, BaseImageProcessor, set[str]]:
    if uses_small_vit(model, data):
        if model.drop_path_rate is not None:
            raise ArgumentError("drop_path_rate", "the small ViT has no drop path: leave it out.")
        return *small_vit(names), set()
    if not args.do_train and (name := model.config_name or model.model_name_or_path):
        names_of_model = load_class_names(name, **model.hub)
        try:
            check_same_classes(names_of_model, names)
        except ValueError as error:
            raise ArgumentError(
                "do_train", f"{error} `clce-hf evaluate` matches them by name."
            ) from error
    return model.load(names)


def summary(args: CLCEConfig, outcome: Outcome) -> str:
    """Return the lines that end a run."""
    lines = ["", "CLCE" if args.contrastive_weight > 0 else "Cross-entropy"]
    if "eval_accuracy" in outcome.metrics:
        lines.append(f"  accuracy       {outcome.metrics['eval_accuracy']:.2%}")
        lines.append(f"  cross-entropy  {outcome.metrics['eval_loss']:.4f}")
    lines += outcome.calibrated.lines()
    if args.do_train:
        if args.head_init == "class_means":
            lines.append("  head           began as class means; at random with --head_init none")
        lines.append(f"  training time  {outcome.seconds:.1f} s")
        lines.append(f"  model          {args.output_dir}")
        lines.append(
            f'  load it with   pipeline("image-classification", model="{args.output_dir}")'
        )
    return "\n".join(lines)
