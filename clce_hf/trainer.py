"""`CLCETrainer`: Transformers' Trainer with the CLCE loss (arXiv 2402.14551)."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from clce_hf.config import CLCEConfig, check_settings, hyperparameters
from clce_hf.evaluation.fit_calibration import fit_calibration
from clce_hf.hub import CardMethod
from clce_hf.hub.card_loss import CardLoss
from clce_hf.hub.publishing import PublishingTrainer
from clce_hf.loss.targets import class_targets
from clce_hf.models.class_names import class_names
from clce_hf.models.classification_layer import find_classification_layer, num_classes_of
from clce_hf.models.layer_decay import apply_layer_decay
from clce_hf.models.problem_type import declare_single_label
from clce_hf.models.projection import PROJECTION_FILE, detached, projection_for
from clce_hf.plain_arguments import add_defaults
from clce_hf.reports.card_pictures import draw_card_pictures
from clce_hf.training import checkpoints, checks
from clce_hf.training.accumulation import divides_by_accumulation_steps, labels_of_step
from clce_hf.training.calibrating import CalibratingTrainer
from clce_hf.training.forward import Forward, loss_and_outputs
from clce_hf.training.grouping import GroupingTrainer
from clce_hf.training.head_start import HeadStartTrainer
from clce_hf.training.hooking import HookingTrainer
from clce_hf.training.label_range import check_stored_labels
from clce_hf.training.labels import Batch, countable, split_labels
from clce_hf.training.measuring import MeasuringTrainer
from clce_hf.training.neighbors import NeighborsTrainer
from clce_hf.training.objective import objective_of
from clce_hf.training.resuming import ResumingTrainer


class CLCETrainer(
    GroupingTrainer,
    NeighborsTrainer,
    HookingTrainer,
    MeasuringTrainer,
    HeadStartTrainer,
    ResumingTrainer,
    CalibratingTrainer,
    PublishingTrainer,
):
    """`transformers.Trainer` for image classifiers, trained with CLCE.

    The constructor is that of `Trainer`. `args` may be a `CLCEConfig` or plain `TrainingArguments`;
    the defaults of `CLCEConfig` then hold. `compute_loss_func` and `label_smoothing_factor` act on
    the cross-entropy term. Evaluation reports the cross-entropy as `eval_loss`, so that it compares
    with any other Trainer's, and the contrastive term within each batch of the evaluation as
    `eval_contrastive_loss`; predictions are the model's logits.

    Raises:
        ValueError: for a model, data set or setting that CLCE cannot train, naming the fix.
    """

    pushed_files = (PROJECTION_FILE,)
    fit_calibration = staticmethod(fit_calibration)
    _labels_in_step: Tensor | int | None = None
    _has_contrasted = False
    args: CLCEConfig  # pyrefly: ignore[bad-override]  # or TrainingArguments with its fields

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        model_init: Callable[..., Any] | None = None,
        compute_loss_func: Callable[..., Tensor] | None = None,
        compute_metrics: Callable[..., dict[str, Any]] | None = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(
            model,
            add_defaults(CLCEConfig("tmp_trainer") if args is None else args),
            data_collator,
            train_dataset,
            eval_dataset,
            processing_class,
            model_init,
            compute_loss_func,
            compute_metrics,
            callbacks,
            optimizers,
            optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics,
        )
        # Trainer finds none if the model's forward takes no labels; we withhold them anyway.
        self.label_names = self.label_names or ["labels"]
        checks.check_layer_decay(self.args.layer_decay, self.optimizer)
        self._prepare()

    # ---- before training ----

    def _hp_search_setup(self, trial: Any) -> None:
        # Called by every train(), once model_init's model and a trial's arguments are there.
        super()._hp_search_setup(trial)
        self._prepare()
        if type(self) is CLCETrainer:  # a subclass may change labels on their way
            check_stored_labels(self)

    def _prepare(self) -> None:
        """Check the settings, the model and the data; make the projection head."""
        model, args = cast(nn.Module, self.model), self.args
        check_settings(args)
        checks.check_model(model)
        checks.check_parallelism(self)
        if self._mini_batch_size is not None:
            checks.check_forwards_in_mini_batches(model, self)
        self.projection_head = None
        if args.contrastive_weight == 0:
            return
        gathered = self.accelerator.num_processes if args.gather_across_devices else 1
        contrasted = gathered * self._train_batch_size
        checks.check_has_negatives(args.samples_per_class, contrasted, args.memory_size)
        bare = self.bare(model)
        _, layer = find_classification_layer(bare, args.classification_layer)
        if args.projection_dim is not None:
            self.projection_head = projection_for(bare, layer, args.projection_dim, args.seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimizer, its learning rates decayed by layer where `layer_decay` is set."""
        is_new = self.optimizer is None
        with self._with_head():  # whose parameters have a rate, too
            optimizer = super().create_optimizer(model)
            if is_new and self.args.layer_decay is not None:
                decayed = cast(nn.Module, self.model if model is None else model)
                apply_layer_decay(optimizer, decayed, self.args.layer_decay)
        return optimizer

    # ---- the loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the CLCE loss of a batch in training, its cross-entropy in evaluation.

        The model's own loss is not used, since some architectures scale it wrongly under gradient
        accumulation. In training the loss is this micro-batch's share of the optimizer step:
        cross-entropy is the mean over its samples, the contrastive term over its micro-batches.

        Raises:
            ValueError: if labels are missing or are not one class per image (training also takes
                class probabilities), or for a wrong layer or embeddings without gradient.
            FloatingPointError: in training, if a term is not finite.
        """
        bare = self.bare(model)
        inputs, labels = split_labels(inputs, self.label_names, bare)
        capture, is_training = self.capture_of(bare), self._is_training(model)
        if capture is not None and is_training:
            self._check_trains_below(capture)
        num_classes = functools.partial(num_classes_of, bare, self.args.classification_layer)
        forward = Forward(capture, self.accelerator.no_sync, num_classes, is_training)
        mini_batch_size = self._mini_batch_size if is_training else None
        forwarded = forward(model, inputs, len(labels), mini_batch_size)
        targets = class_targets(labels, forwarded.logits, forwarded.logits.shape[1])
        if self.compute_loss_func is None and self.label_smoother is None:
            declare_single_label(bare, targets)
        # Outside train() the loss is that of the batch alone, and the same at every call.
        objective = objective_of(self, hyperparameters(self.args), self._memory)
        if not is_training:
            terms = objective.evaluation_terms(forwarded, targets, num_items_in_batch)
            if self._is_running:
                self._meters.add_evaluation(terms, forwarded.embeddings, targets)
            loss = terms.loss
        elif self._memory is None:
            loss = objective.training_terms(forwarded, targets, num_items_in_batch, 1.0, 0).loss
        else:
            steps = self.current_gradient_accumulation_steps
            num_items = self._labels_in_step if num_items_in_batch is None else num_items_in_batch
            at_step = self.state.global_step + 1
            terms = objective.training_terms(forwarded, targets, num_items, 1.0 / steps, at_step)
            self._meters.add_step(terms, 1.0 / steps)
            self._has_contrasted |= capture is not None
            divides = divides_by_accumulation_steps(self, num_items_in_batch)
            loss = terms.loss * steps if divides else terms.loss
        return loss_and_outputs(loss, forwarded.outputs) if return_outputs else loss

    @property
    def _mini_batch_size(self) -> int | None:
        """Images to forward at a time, the same on every process; None for the whole batch."""
        size = self.args.cached_mini_batch_size
        return None if size is None or size >= self._train_batch_size else size

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        return super()._get_num_items_in_batch([countable(b) for b in batch_samples], device)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> Any:
        """Return the batches of a step as Trainer does, and count their labels for our loss."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._labels_in_step = num_items
        if num_items is None:
            self._labels_in_step = labels_of_step(self, batches)
        return batches, num_items

    # ---- checkpoints and the model card ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(
            output_dir,
            checkpoints.save_projection(self, self.projection_head, output_dir, state_dict),
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        head = self.projection_head
        if not checkpoints.load_weights(self, model, head, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        folder = cast(str, self.state.best_model_checkpoint)
        if checkpoints.load_weights(self, None, self.projection_head, folder):
            return
        is_sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        with detached(self.bare(self.model), None if is_sharded else self.projection_head):
            super()._load_best_model()

    def card_method(self) -> CardMethod:
        """Name CLCE, cross-entropy where nothing is contrasted, or a loss of one's own."""
        return self._card_loss().method

    def card_settings(self) -> dict[str, str]:
        """Return the settings of the loss and of the training, by name."""
        return self._card_loss().settings(self._train_batch_size, super().card_settings())

    def _card_loss(self) -> CardLoss:
        is_of_subclass = type(self).compute_loss is not CLCETrainer.compute_loss
        is_contrasted = self.args.contrastive_weight > 0
        if is_of_subclass:
            is_contrasted &= self._has_contrasted
        smoothing = getattr(self.label_smoother, "epsilon", 0.0)
        return CardLoss(self.args, self.compute_loss_func, smoothing, is_of_subclass, is_contrasted)

    def draw_pictures(self, folder: Path) -> dict[str, Path]:
        """Draw the training curve and a map of the embeddings of the last evaluation."""
        names = class_names(cast(Any, self.model).config)
        return draw_card_pictures(self.state.log_history, self._meters.sample.rows(), names, folder)
