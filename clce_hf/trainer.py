"""`CLCETrainer`: Transformers' Trainer with the CLCE loss (arXiv 2402.14551)."""

import functools
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer
from transformers.loss.loss_utils import fixed_cross_entropy
from transformers.trainer_utils import EvalLoopOutput, has_length

from clce_hf.config import CLCEConfig, add_defaults
from clce_hf.embedding import EmbeddingCapture, embedding_size
from clce_hf.labels import read_labels
from clce_hf.layer_decay import apply_layer_decay
from clce_hf.loss import count_positives, label_aware_contrastive_loss
from clce_hf.projection import (
    PROJECTION_NAME,
    ProjectionHead,
    attach_projection,
    load_projection,
    save_projection,
)
from clce_hf.renamed_weights import load_renamed_weights
from clce_hf.running_means import RunningMeans
from clce_hf.sampler import GroupByLabelSampler

logger = logging.getLogger(__name__)

_BATCHES_BEFORE_WARNING = 5


class CLCETrainer(Trainer):
    """`transformers.Trainer` for image classifiers, trained with CLCE.

    The constructor is that of `Trainer`. `args` may be a `CLCEConfig` or plain `TrainingArguments`;
    the paper's hyperparameters then hold. `compute_loss_func` and `label_smoothing_factor` act on
    the cross-entropy term. Evaluation reports the cross-entropy as `eval_loss`, so that it compares
    with any other Trainer's, and the contrastive term, within each batch of the evaluation, as
    `eval_contrastive_loss`; predictions are the model's logits.

    Raises:
        ValueError: for a model, data set or setting that CLCE cannot train, naming the fix.
    """

    # compute_loss weighs each micro-batch by its share of the optimizer step itself: a model that
    # does not hand num_items_in_batch to its loss, like BEiT, would be scaled wrongly otherwise.
    loss_is_scaled_for_ga = True
    args: CLCEConfig

    @functools.wraps(Trainer.__init__)
    def __init__(self, model: Any = None, args: Any = None, *others: Any, **named: Any) -> None:
        args = add_defaults(CLCEConfig("tmp_trainer") if args is None else args)
        self._capture: EmbeddingCapture | None = None
        self._train_means = RunningMeans()
        self._eval_means = RunningMeans()
        super().__init__(model, args, *others, **named)
        # Counts the labels of a step for every model: the loss that is scaled by it is ours.
        self.model_accepts_loss_kwargs = True
        self._prepare_contrast()

    # ---- before training ----

    def _hp_search_setup(self, trial: Any) -> None:
        # The first hook of a run at which model_init's model and a trial's arguments are there.
        super()._hp_search_setup(trial)
        self._train_means.reset()
        self._prepare_contrast()

    def _prepare_contrast(self) -> None:
        """Check the model, data and settings, and hook the model where it is contrasted."""
        _check_model(self.model)
        if self.args.n_gpu > 1:
            raise ValueError(
                "CLCETrainer does not run under nn.DataParallel, which would contrast nothing "
                "across GPUs: start the script with `accelerate launch`, or set "
                "CUDA_VISIBLE_DEVICES to one GPU."
            )
        if self.args.layer_decay is not None and self.optimizer is not None:
            raise ValueError(
                "layer_decay sets the learning rates of the optimizer that Trainer creates: leave "
                "out layer_decay, or leave out `optimizers`."
            )
        if self.train_dataset is not None:
            self._check_train_dataset(self.train_dataset)
        wanted = self.args.contrastive_weight > 0
        if self._capture is not None and not (wanted and self._capture.model is self.model):
            self._capture.remove()
            self._capture = None
        if wanted and self._capture is None:
            self._capture = self._attach_capture(self.model)
            self._batches_seen = 0
            self._without_positive: Tensor | float = 0.0

    def _attach_capture(self, model: nn.Module) -> EmbeddingCapture:
        name = self.args.embedding_module
        capture = EmbeddingCapture(model, name)
        layer = capture.layer
        if self.args.projection_dim is None:
            in_layer = set(layer.parameters())
            if not any(p.requires_grad and p not in in_layer for p in model.parameters()):
                raise ValueError(_frozen_message())
            return capture
        capture.remove()
        size = embedding_size(layer)
        if size is None:
            raise ValueError(
                f"projection_dim needs the size of the embeddings, which {capture.name!r} does not "
                "tell: name a linear layer with embedding_module, or leave projection_dim out."
            )
        head = ProjectionHead(size, self.args.projection_dim, seed=self.args.seed)
        attach_projection(model, head.to(next(layer.parameters()).device))
        return EmbeddingCapture(model, name, projection=head)

    def _check_train_dataset(self, dataset: Any) -> None:
        if not has_length(dataset):
            if self.args.samples_per_class is not None:
                raise ValueError(
                    "samples_per_class needs a data set with a length and readable labels, got an "
                    f"{type(dataset).__name__}: leave samples_per_class out."
                )
            return
        labels = read_labels(dataset, self.label_names)
        if labels is None:
            if self.args.samples_per_class is not None:
                raise ValueError(
                    "samples_per_class found no labels in the training data: looked for a column "
                    f"or attribute named 'targets', 'labels', 'label', 'label_ids' or "
                    f"{self.label_names}. Name it in label_names, or give the data set a `targets` "
                    "attribute."
                )
        elif len(labels.unique()) < 2:
            raise ValueError(
                "The training data has fewer than two classes: there is nothing to contrast."
            )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.samples_per_class is None:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        self._check_train_dataset(dataset)
        labels = read_labels(dataset, self.label_names)
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return GroupByLabelSampler(
            labels, self.args.samples_per_class, self._train_batch_size, seed=seed
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, its learning rates decayed by layer where `layer_decay` is set."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.args.layer_decay is not None:
            apply_layer_decay(optimizer, model or self.model, self.args.layer_decay)
        return optimizer

    # ---- the loss ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the CLCE loss of a batch in training, its cross-entropy in evaluation.

        The labels are withheld from the model, whose own loss some architectures scale wrongly
        under gradient accumulation. In training the loss is this micro-batch's share of the
        optimizer step: cross-entropy is the mean over all its samples, the contrastive term the
        mean over its micro-batches.

        Raises:
            ValueError: for labels that are missing or not one class an image, a classification
                layer that is not the right one, or embeddings without gradient.
            FloatingPointError: in training, if a term is not finite.
        """
        inputs, labels = self._split_labels(inputs)
        outputs, embeddings = model(**inputs), None
        if self._capture is not None:
            outputs, embeddings = self._capture.split(outputs)
        is_mapping = isinstance(outputs, dict)
        logits = outputs["logits"] if is_mapping else outputs[0]
        labels = _class_labels(labels, logits)
        cross_entropy = self._cross_entropy(outputs, logits, labels, num_items_in_batch)
        if model.training:
            loss = self._training_loss(cross_entropy, embeddings, labels, num_items_in_batch)
        else:
            loss = cross_entropy
            if embeddings is not None:
                self._observe_evaluation(embeddings, labels)
        if not return_outputs:
            return loss
        # Trainer takes the first of a tuple for the loss, as models return it when given labels.
        return loss, outputs if is_mapping else (loss, *outputs)

    def _split_labels(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
        name = next((name for name in self.label_names if inputs.get(name) is not None), None)
        if name is None:
            raise ValueError(
                f"The batch holds no labels: none of label_names={self.label_names} is among "
                f"{sorted(inputs)}. Check what the data collator returns, label_names, and, with "
                "set_transform, that remove_unused_columns is False."
            )
        return {key: value for key, value in inputs.items() if key != name}, inputs[name]

    def _cross_entropy(
        self, outputs: Any, logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None
    ) -> Tensor:
        """Cross-entropy as Trainer would have it: over num_items_in_batch where that is known."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items_in_batch)
        elif self.label_smoother is not None:
            loss = self.label_smoother(
                {"logits": logits}, labels, num_items_in_batch=num_items_in_batch
            )
        else:
            loss = fixed_cross_entropy(logits, labels, num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The items were counted over all processes, and DDP averages over them.
            loss = loss * self.accelerator.num_processes
        return loss

    def _training_loss(
        self,
        cross_entropy: Tensor,
        embeddings: Tensor | None,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor:
        # Outside train() there are no accumulation steps to share with.
        share = 1.0 / self.current_gradient_accumulation_steps if self.is_in_train else 1.0
        if num_items_in_batch is None and self.compute_loss_func is None:
            cross_entropy = cross_entropy * share
        weight = self.args.contrastive_weight
        terms = {"ce_loss": cross_entropy}
        loss = cross_entropy
        if embeddings is not None:
            if not embeddings.requires_grad:
                raise ValueError(_frozen_message())
            contrastive = share * self._contrastive(embeddings, labels)
            loss = (1.0 - weight) * cross_entropy + weight * contrastive
            num_positives = count_positives(labels)
            self._warn_of_missing_positives(num_positives)
            terms["contrastive_loss"] = contrastive
            terms["positives_per_anchor"] = share * num_positives.float().mean()
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            raise FloatingPointError(
                f"The loss is not finite at step {self.state.global_step + 1}: {values}. Lower "
                "learning_rate or set max_grad_norm; check the images for NaN."
            )
        self._train_means.add(torch.tensor(share, device=loss.device), **terms)
        return loss

    def _contrastive(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return label_aware_contrastive_loss(
            embeddings,
            labels,
            temperature=self.args.temperature,
            beta=self.args.beta,
            variant=self.args.variant,
        )

    def _observe_evaluation(self, embeddings: Tensor, labels: Tensor) -> None:
        num_anchors = (count_positives(labels) > 0).sum()
        contrastive = self._contrastive(embeddings, labels)
        self._eval_means.add(num_anchors, contrastive_loss=contrastive * num_anchors)

    def _warn_of_missing_positives(self, num_positives: Tensor) -> None:
        """Say once, after a few batches, that most images had no other of their class."""
        self._batches_seen += 1
        if self._batches_seen > _BATCHES_BEFORE_WARNING:
            return
        self._without_positive += (num_positives == 0).float().mean()
        if self._batches_seen == _BATCHES_BEFORE_WARNING:
            share = float(self._without_positive) / _BATCHES_BEFORE_WARNING
            if share > 0.5 and self.is_world_process_zero():
                logger.warning(
                    f"{share:.0%} of the images had no other image of their class in the batch, so "
                    "the contrastive term skips them. Set samples_per_class (4 divides most batch "
                    "sizes) in CLCEConfig, or enlarge per_device_train_batch_size."
                )

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
        self._eval_means.reset()
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        for name, mean in self._eval_means.drain(self.accelerator).items():
            output.metrics[f"{metric_key_prefix}_{name}"] = mean
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms of the loss since the last time beside `loss`."""
        if "loss" in logs:
            logs.update(self._train_means.drain(self.accelerator))
        super().log(logs, start_time)

    # ---- saving and loading ----

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        prefix = f"{PROJECTION_NAME}."
        head = self._projection()
        if head is not None:
            weights = self.model.state_dict() if state_dict is None else state_dict
            state_dict = {k: v for k, v in weights.items() if not k.startswith(prefix)}
        super()._save(output_dir, state_dict)
        if head is not None and self.args.should_save:
            save_projection(head, self.args.output_dir if output_dir is None else output_dir)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        load_projection(self._projection(), resume_from_checkpoint)
        target = self.model if model is None else model
        if not self._load_renamed(target, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        folder = self.state.best_model_checkpoint
        load_projection(self._projection(), folder)
        if not self._load_renamed(self.model, folder):
            super()._load_best_model()

    def _load_renamed(self, model: nn.Module, folder: str) -> bool:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False  # their checkpoints keep the model's own names
        return load_renamed_weights(model, folder)

    def _projection(self) -> nn.Module | None:
        return None if self._capture is None else self._capture.projection


def _check_model(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    problem_type = getattr(config, "problem_type", None)
    if problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"The model's problem_type is {problem_type!r}, but CLCE contrasts classes and needs "
            "one class an image: set problem_type='single_label_classification', or use "
            "transformers.Trainer."
        )
    if getattr(config, "num_labels", 2) < 2:
        raise ValueError(
            f"The model has num_labels={config.num_labels}, but CLCE needs at least two classes: "
            "load it with from_pretrained(..., num_labels=...)."
        )


def _class_labels(labels: Tensor, logits: Tensor) -> Tensor:
    if labels.is_floating_point() or labels.numel() != logits.shape[0]:
        raise ValueError(
            f"labels must be one integer class id an image, got {labels.dtype} of shape "
            f"{tuple(labels.shape)} for {logits.shape[0]} images: CLCE contrasts classes, so "
            "multi-label, soft and regression targets do not fit it."
        )
    return labels.view(-1).long()


def _frozen_message() -> str:
    return (
        "The backbone is frozen: the embeddings carry no gradient, so the contrastive term would "
        "train nothing. Set projection_dim to train a head on them, unfreeze the backbone, or set "
        "contrastive_weight=0."
    )
