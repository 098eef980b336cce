"""`CLCETrainer`: Transformers' Trainer with the CLCE loss (arXiv 2402.14551)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.trainer_utils import EvalLoopOutput

from clce_hf.config import CLCEConfig, add_defaults, card_settings, check_settings, hyperparameters
from clce_hf.hub.methods import CLCE, CROSS_ENTROPY, CardMethod
from clce_hf.hub.publishing import PublishingTrainer
from clce_hf.loss.targets import class_targets
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.class_names import class_names
from clce_hf.models.layer_decay import apply_layer_decay
from clce_hf.models.projection import PROJECTION_FILE
from clce_hf.reports.card_pictures import draw_card_pictures
from clce_hf.training import checkpoints, checks
from clce_hf.training.even_batches import fill_last_batches
from clce_hf.training.forward import Forward, is_training, loss_and_outputs, read_embeddings
from clce_hf.training.grouping import group_by_label
from clce_hf.training.head_start import HeadStartTrainer
from clce_hf.training.labels import Batch, countable, required_arguments, split_labels
from clce_hf.training.memory import EmbeddingMemory
from clce_hf.training.meters import Meters
from clce_hf.training.objective import objective_of
from clce_hf.training.resuming import ResumingTrainer


class CLCETrainer(HeadStartTrainer, ResumingTrainer, PublishingTrainer):
    """`transformers.Trainer` for image classifiers, trained with CLCE.

    The constructor is that of `Trainer`. `args` may be a `CLCEConfig` or plain `TrainingArguments`;
    the defaults of `CLCEConfig` then hold. `compute_loss_func` and `label_smoothing_factor` act on
    the cross-entropy term. Evaluation reports the cross-entropy as `eval_loss`, so that it compares
    with any other Trainer's, and the contrastive term within each batch of the evaluation as
    `eval_contrastive_loss`; predictions are the model's logits.

    Raises:
        ValueError: for a model, data set or setting that CLCE cannot train, naming the fix.
    """

    # compute_loss already scales each micro-batch to its share of the optimizer step. Trainer would
    # rescale by the model's signature, wrongly for models like BEiT that drop num_items_in_batch.
    loss_is_scaled_for_ga = True
    pushed_files = (PROJECTION_FILE,)
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
        self._capture: EmbeddingCapture | None = None
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
        # Trainer is to count the labels of each step whatever the model accepts: we scale the loss.
        self.model_accepts_loss_kwargs = True
        # Trainer finds none if the model's forward takes no labels; we withhold them anyway.
        self.label_names = self.label_names or ["labels"]
        self._meters = Meters(self.is_world_process_zero())
        checks.check_layer_decay(self.args.layer_decay, self.optimizer)
        self._prepare()

    # ---- before training ----

    def _hp_search_setup(self, trial: Any) -> None:
        # Called by every train(), once model_init's model and a trial's arguments are there.
        super()._hp_search_setup(trial)
        self._prepare()

    def _prepare(self) -> None:
        """Check the settings, the model and the data; hook the model if it is contrasted."""
        model, args = cast(nn.Module, self.model), self.args
        check_settings(args)
        checks.check_model(model)
        checks.check_parallelism(self)
        if self._mini_batch_size is not None:
            checks.check_forwards_in_mini_batches(model, self)
        if self.train_dataset is not None:
            checks.training_labels(self.train_dataset, args.samples_per_class, self.label_names)
        self._required = required_arguments(model)
        self._meters.start_training()
        if self._capture is not None:
            self._capture.remove()
        self._capture, self._memory = None, EmbeddingMemory(0)
        if args.contrastive_weight > 0:
            gathered = self.accelerator.num_processes if args.gather_across_devices else 1
            contrasted = gathered * self._train_batch_size
            checks.check_has_negatives(args.samples_per_class, contrasted, args.memory_size)
            layer, size = args.classification_layer, args.projection_dim
            self._capture = read_embeddings(model, layer, size, args.seed)
            self._memory = EmbeddingMemory(args.memory_size)
        self._forward = Forward(self._capture, self.accelerator.no_sync)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.samples_per_class is None:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        return group_by_label(self, dataset, self._train_batch_size)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimizer, its learning rates decayed by layer where `layer_decay` is set."""
        is_new = self.optimizer is None
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
        inputs, labels = split_labels(inputs, self.label_names, self._required)
        forwarded = self._forward(model, inputs, len(labels), self._mini_batch_size)
        targets = class_targets(labels, forwarded.logits, forwarded.logits.shape[1])
        # Outside train() the loss is that of the batch alone, and the same at every call.
        memory = self._memory if self.is_in_train else None
        objective = objective_of(self, hyperparameters(self.args), memory)
        if is_training(model):
            # Outside train() there are no accumulation steps to share with.
            share = 1.0 / self.current_gradient_accumulation_steps if self.is_in_train else 1.0
            step = self.state.global_step + 1
            terms = objective.training_terms(forwarded, targets, num_items_in_batch, share, step)
            self._meters.add_step(terms, share)
        else:
            terms = objective.evaluation_terms(forwarded, targets, num_items_in_batch)
            self._meters.add_evaluation(terms, forwarded.embeddings, targets)
        return loss_and_outputs(terms.loss, forwarded.outputs) if return_outputs else terms.loss

    @property
    def _mini_batch_size(self) -> int | None:
        """Images to forward at a time, the same on every process; None for the whole batch."""
        size = self.args.cached_mini_batch_size
        return None if size is None or size >= self._train_batch_size else size

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        batches = [countable(batch, self.label_names) for batch in batch_samples]
        return super()._get_num_items_in_batch(batches, device)

    # ---- evaluating and logging ----

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as Trainer does, and add the contrastive term to the metrics.

        `eval_contrastive_loss` is the mean over the anchors that have a positive in their batch of
        the evaluation; it is left out where no image has one.
        """
        fill_last_batches(dataloader)
        self._meters.start_evaluation(dataloader, self.args.eval_batch_size)
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        for name, mean in self._meters.end_evaluation(dataloader, self.accelerator).items():
            cast(dict[str, float], output.metrics)[f"{metric_key_prefix}_{name}"] = mean
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms of the loss since the last time beside `loss`."""
        if "loss" in logs:
            logs.update(self._meters.training.drain(self.accelerator))
        super().log(logs, start_time)

    # ---- checkpoints and the model card ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(
            output_dir, checkpoints.save_projection(self, self._capture, output_dir, state_dict)
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not checkpoints.load_weights(self, model, self._capture, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        folder = cast(str, self.state.best_model_checkpoint)
        if not checkpoints.load_weights(self, None, self._capture, folder):
            super()._load_best_model()

    def card_method(self) -> CardMethod:
        """Name CLCE, or cross-entropy where nothing is contrasted."""
        return CROSS_ENTROPY if self._capture is None else CLCE

    def card_settings(self) -> dict[str, str]:
        """Return the settings of the loss and of the training, by name."""
        return card_settings(self.args, self._train_batch_size, super().card_settings())

    def draw_pictures(self, folder: Path) -> dict[str, Path]:
        """Draw the training curve and a map of the embeddings of the last evaluation."""
        names = class_names(cast(Any, self.model).config)
        return draw_card_pictures(self.state.log_history, self._meters.sample.rows(), names, folder)
