"""`CLCETrainer`: Transformers' Trainer with the CLCE loss (arXiv 2402.14551)."""

import functools
import inspect
import logging
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.data_loader import BatchSamplerShard
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer
from transformers.loss.loss_utils import fixed_cross_entropy
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.trainer_utils import EvalLoopOutput, has_length

from clce_hf.config import CLCEConfig, add_defaults, training_settings
from clce_hf.data.sampler import GroupByLabelSampler
from clce_hf.data.sampler_epoch import SamplerEpoch
from clce_hf.hub.benchmark_result import write_benchmark_result
from clce_hf.hub.model_card import Run, loads_with, rewrite_model_card
from clce_hf.hub.unsaved_token import UnsavedToken
from clce_hf.loss.clce import label_aware_contrastive_loss
from clce_hf.loss.distributed import global_contrastive_loss
from clce_hf.loss.pairs import IGNORE_INDEX, count_positives
from clce_hf.models.capture import EmbeddingCapture, logits_of
from clce_hf.models.layer_decay import apply_layer_decay
from clce_hf.models.pretrained import class_names
from clce_hf.models.projection import (
    PROJECTION_FILE,
    attach_projection,
    load_projection,
    save_projection,
    split_projection,
)
from clce_hf.models.renamed_weights import load_renamed_weights
from clce_hf.reports.curves import draw_training_curve
from clce_hf.reports.embedding_map import draw_embedding_map
from clce_hf.reports.extra import can_draw
from clce_hf.training.checks import (
    FROZEN_BACKBONE,
    check_data_parallel,
    check_finite,
    check_forwards_in_mini_batches,
    check_has_negatives,
    check_model,
    check_one_device,
    check_processes_joined,
    check_trains_below,
    class_labels,
    training_labels,
)
from clce_hf.training.embedding_sample import EmbeddingSample
from clce_hf.training.gradcache import forward_in_mini_batches, split_inputs
from clce_hf.training.running_means import RunningMeans

logger = logging.getLogger(__name__)

_BATCHES_BEFORE_WARNING = 5


class CLCETrainer(Trainer):
    """`transformers.Trainer` for image classifiers, trained with CLCE.

    The constructor is that of `Trainer`. `args` may be a `CLCEConfig` or plain `TrainingArguments`;
    the paper's hyperparameters then hold. `compute_loss_func` and `label_smoothing_factor` act on
    the cross-entropy term. Evaluation reports the cross-entropy as `eval_loss`, so that it compares
    with any other Trainer's, and the contrastive term within each batch of the evaluation as
    `eval_contrastive_loss`; predictions are the model's logits.

    Raises:
        ValueError: for a model, data set or setting that CLCE cannot train, naming the fix.
    """

    # compute_loss weighs each micro-batch by its share of the optimizer step itself: a model that
    # does not hand num_items_in_batch to its loss, like BEiT, would be scaled wrongly otherwise.
    loss_is_scaled_for_ga = True

    @functools.wraps(Trainer.__init__)
    def __init__(self, model: Any = None, args: Any = None, *others: Any, **named: Any) -> None:
        self._capture: EmbeddingCapture | None = None
        self._train_means = RunningMeans()
        self._eval_means = RunningMeans()
        self._eval_sample = EmbeddingSample() if can_draw() else None
        self._evaluated_on: dict[str, Any] = {}
        args = add_defaults(CLCEConfig("tmp_trainer") if args is None else args)
        if args.hub_token is not None:
            args.hub_token = UnsavedToken(args.hub_token)
        super().__init__(model, args, *others, **named)
        # Has the labels of a step counted for every model: the loss that is scaled by it is ours.
        self.model_accepts_loss_kwargs = True
        # Empty for a model whose forward takes no labels, which this one is not given anyway.
        self.label_names = self.label_names or ["labels"]
        if self._config.layer_decay is not None and self.optimizer is not None:
            raise ValueError(
                "layer_decay sets the learning rates of the optimizer that Trainer creates: leave "
                "out layer_decay, or leave out `optimizers`."
            )
        self._prepare_contrast()

    @property
    def _config(self) -> CLCEConfig:
        return cast(CLCEConfig, self.args)

    # ---- before training ----

    def _hp_search_setup(self, trial: Any) -> None:
        # The first hook of a run at which model_init's model and a trial's arguments are there.
        super()._hp_search_setup(trial)
        self._prepare_contrast()

    def _prepare_contrast(self) -> None:
        """Check the model, data and settings, and hook the model where it is contrasted."""
        model = cast(nn.Module, self.model)
        check_model(model)
        check_one_device(self.args.n_gpu)
        check_processes_joined(self.accelerator.num_processes)
        check_data_parallel(self.get_tp_size() * self.get_cp_size() * self.get_sp_size())
        if self._mini_batch_size is not None:
            is_ragged_fsdp = self.is_fsdp_enabled and not self.accelerator.even_batches
            check_forwards_in_mini_batches(model, self.is_deepspeed_enabled, is_ragged_fsdp)
        parameters = inspect.signature(model.forward).parameters.values()
        self._required = {p.name for p in parameters if p.default is inspect.Parameter.empty}
        if self.train_dataset is not None:
            training_labels(self.train_dataset, self._config.samples_per_class, self.label_names)
        self._train_means.reset()
        self._batches_seen = 0
        self._without_positive = torch.tensor(0.0, device=self.args.device)
        if self._capture is not None:
            self._capture.remove()
            self._capture = None
        if self._config.contrastive_weight > 0:
            gathered = self.accelerator.num_processes if self._config.gather_across_devices else 1
            check_has_negatives(self._config.samples_per_class, gathered * self._train_batch_size)
            self._capture = EmbeddingCapture(model, self._config.embedding_module)
            if self._config.projection_dim is None:
                check_trains_below(model, self._capture.layer)
            else:
                self._capture.project_with(
                    attach_projection(
                        model, self._capture.layer, self._config.projection_dim, self.args.seed
                    )
                )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        samples_per_class = self._config.samples_per_class
        if samples_per_class is None:
            return super()._get_train_sampler(train_dataset)
        dataset = self.train_dataset if train_dataset is None else train_dataset
        labels = cast(Tensor, training_labels(dataset, samples_per_class, self.label_names))
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        self.pop_callback(SamplerEpoch)  # of an earlier run
        self.add_callback(SamplerEpoch)
        return GroupByLabelSampler(labels, samples_per_class, self._train_batch_size, seed=seed)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimizer, its learning rates decayed by layer where `layer_decay` is set."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self._config.layer_decay is not None:
            decayed = cast(nn.Module, self.model if model is None else model)
            apply_layer_decay(optimizer, decayed, self._config.layer_decay)
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
        under gradient accumulation; that of a model whose `forward` requires them is ignored. In
        training the loss is this micro-batch's share of the optimizer step: cross-entropy is the
        mean over all its samples, the contrastive term the mean over its micro-batches.

        Raises:
            ValueError: for labels that are missing, or neither one class an image nor, in training,
                its class probabilities, a classification layer that is not the right one, or
                embeddings without gradient.
            FloatingPointError: in training, if a term is not finite.
        """
        # A step of evaluation may be taken by hand, with a model in training mode.
        is_training = model.training and torch.is_grad_enabled()
        inputs, labels = self._split_labels(inputs)
        if self._mini_batch_size is None or not is_training:
            outputs, embeddings = self._forward(model, inputs)
        else:
            outputs, embeddings = self._forward_cached(model, inputs, len(labels))
        logits = logits_of(outputs)
        labels = class_labels(labels, logits, may_be_soft=is_training)
        loss = self._cross_entropy(outputs, logits, labels, num_items_in_batch)
        if is_training:
            loss = self._training_loss(loss, embeddings, labels, num_items_in_batch)
        else:
            self._observe_evaluation(loss, embeddings, labels)
        if not return_outputs:
            return loss
        if isinstance(outputs, dict):
            return loss, outputs
        # Trainer takes the first of a tuple for the loss, as models return it when given labels.
        others = (outputs,) if isinstance(outputs, Tensor) else outputs
        return loss, (loss, *(others[1:] if others[0].dim() == 0 else others))

    def _get_num_items_in_batch(
        self, batch_samples: list[Any], device: torch.device
    ) -> Tensor | int | None:
        return super()._get_num_items_in_batch(list(map(_with_one_number, batch_samples)), device)

    def _split_labels(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor]:
        name = next((name for name in self.label_names if inputs.get(name) is not None), None)
        if name is None:
            raise ValueError(
                f"The batch holds no labels: none of label_names={self.label_names} is among "
                f"{sorted(inputs)}. Check what the data collator returns, label_names, and, with "
                "set_transform, that remove_unused_columns is False."
            )
        labels = inputs[name]
        if name in self._required:
            return inputs, labels
        return {key: value for key, value in inputs.items() if key != name}, labels

    def _forward(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Any, Tensor | None]:
        if self._capture is None:
            return model(**inputs), None
        outputs, embeddings = self._capture.run(model, inputs)
        if model.training and torch.is_grad_enabled() and not embeddings.requires_grad:
            raise ValueError(FROZEN_BACKBONE)
        return outputs, embeddings

    @property
    def _mini_batch_size(self) -> int | None:
        """Images to forward at a time; None, on every process alike, for the whole batch."""
        size = self._config.cached_mini_batch_size
        return None if size is None or size >= self._train_batch_size else size

    def _forward_cached(
        self, model: nn.Module, inputs: dict[str, Any], num_images: int
    ) -> tuple[Any, Tensor | None]:
        def forward(mini_batch: dict[str, Any]) -> tuple[Tensor, ...]:
            outputs, embeddings = self._forward(model, mini_batch)
            logits = logits_of(outputs)
            return (logits,) if embeddings is None else (logits, embeddings)

        mini_batches = split_inputs(inputs, num_images, cast(int, self._mini_batch_size))
        no_sync = functools.partial(self.accelerator.no_sync, model)
        logits, *embeddings = forward_in_mini_batches(forward, mini_batches, no_sync)
        return ImageClassifierOutput(logits=cast(Any, logits)), next(iter(embeddings), None)

    def _cross_entropy(
        self, outputs: Any, logits: Tensor, labels: Tensor, num_items: Tensor | int | None
    ) -> Tensor:
        """Cross-entropy as Trainer would have it: over `num_items` where that is known."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items)
        elif self.label_smoother is not None and labels.is_floating_point():
            epsilon = self.label_smoother.epsilon  # which it can only apply to class ids
            smoothed = (1.0 - epsilon) * labels + epsilon / labels.shape[1]
            loss = fixed_cross_entropy(logits, smoothed, cast(Any, num_items))
        elif self.label_smoother is not None:
            loss = self.label_smoother({"logits": logits}, labels, num_items_in_batch=num_items)
        else:
            loss = fixed_cross_entropy(logits, labels, cast(Any, num_items))
        if num_items is not None and self.args.average_tokens_across_devices:
            # The items were counted over all processes, and DDP averages over them.
            loss = loss * self.accelerator.num_processes
        return loss

    def _training_loss(
        self,
        cross_entropy: Tensor,
        embeddings: Tensor | None,
        labels: Tensor,
        num_items: Tensor | int | None,
    ) -> Tensor:
        # Outside train() there are no accumulation steps to share with.
        share = 1.0 / self.current_gradient_accumulation_steps if self.is_in_train else 1.0
        if num_items is None and self.compute_loss_func is None:
            cross_entropy = cross_entropy * share
        loss, terms = cross_entropy, {"ce_loss": cross_entropy}
        if embeddings is not None:
            if self._config.gather_across_devices and self.accelerator.num_processes > 1:
                contrastive, num_positives = global_contrastive_loss(
                    embeddings, labels, **self._hyperparameters
                )
            else:
                contrastive = label_aware_contrastive_loss(
                    embeddings, labels, **self._hyperparameters
                )
                num_positives = count_positives(labels)
            contrastive = share * contrastive
            weight = self._config.contrastive_weight
            loss = (1.0 - weight) * cross_entropy + weight * contrastive
            self._warn_of_missing_positives(num_positives)
            terms["contrastive_loss"] = contrastive
            num_images = torch.tensor(len(labels), device=loss.device)
            self._train_means.add(num_images, positives_per_anchor=num_positives.sum())
        check_finite(loss, terms, self.state.global_step + 1)
        self._train_means.add(torch.tensor(share, device=loss.device), **terms)
        return loss

    @property
    def _hyperparameters(self) -> dict[str, Any]:
        config = self._config
        return {
            "temperature": config.temperature,
            "beta": config.beta,
            "variant": config.variant,
        }

    def _warn_of_missing_positives(self, num_positives: Tensor) -> None:
        """Say once, after a few batches, that most images had no other of their class."""
        self._batches_seen += 1
        if self._batches_seen > _BATCHES_BEFORE_WARNING:
            return
        self._without_positive += 1.0 - num_positives.clamp_max(1).float().mean()
        share = self._without_positive / _BATCHES_BEFORE_WARNING
        if self._batches_seen == _BATCHES_BEFORE_WARNING and share > 0.5:
            logger.log(
                logging.WARNING if self.is_world_process_zero() else logging.DEBUG,
                f"{share:.0%} of the images had no other image of their class in the batch, so "
                "the contrastive term skips them. Set samples_per_class (4 divides most batch "
                "sizes) in CLCEConfig, or enlarge per_device_train_batch_size.",
            )

    # ---- evaluating and logging ----

    def _observe_evaluation(
        self, cross_entropy: Tensor, embeddings: Tensor | None, labels: Tensor
    ) -> None:
        num_labels = (labels != IGNORE_INDEX).sum()
        self._eval_means.add(num_labels, loss=cross_entropy * num_labels)
        if embeddings is not None:
            num_anchors = (count_positives(labels) > 0).sum()
            contrastive = label_aware_contrastive_loss(embeddings, labels, **self._hyperparameters)
            self._eval_means.add(num_anchors, contrastive_loss=contrastive * num_anchors)
            if self._eval_sample is not None and self.is_world_process_zero():
                self._eval_sample.add(embeddings, labels)

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
        dataset = getattr(dataloader, "dataset", None)
        self._evaluated_on[metric_key_prefix] = dataset
        batches = getattr(dataloader, "batch_sampler", None)
        # Trainer gathers after every batch, and would wait for a process that has one less.
        if isinstance(batches, BatchSamplerShard):
            batches.even_batches = True
        if self._eval_sample is not None:
            num_images = (
                len(dataloader) * self.args.eval_batch_size if has_length(dataloader) else None
            )
            self._eval_sample.start(num_images)
        output = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        metrics = cast(dict[str, float], output.metrics)
        means = self._eval_means.drain(self.accelerator)
        # Trainer lets a short last batch count for a whole one where it cannot know the length.
        if has_length(dataset):
            means.pop("loss", None)
        for name, mean in means.items():
            metrics[f"{metric_key_prefix}_{name}"] = mean
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with the terms of the loss since the last time beside `loss`."""
        if "loss" in logs:
            logs.update(self._train_means.drain(self.accelerator))
        super().log(logs, start_time)

    # ---- saving and loading ----

    @property
    def _projection(self) -> nn.Module | None:
        return None if self._capture is None else self._capture.projection

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        output_dir = cast(str, self.args.output_dir if output_dir is None else output_dir)
        if self._projection is None:
            return super()._save(output_dir, state_dict)
        # Under FSDP these are the whole weights, where the modules hold shards.
        weights = cast(nn.Module, self.model).state_dict() if state_dict is None else state_dict
        of_model, of_head = split_projection(weights)
        super()._save(output_dir, of_model)
        if self.args.should_save and of_head:
            save_projection(of_head, output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self._load_unsharded(self.model if model is None else model, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        folder = cast(str, self.state.best_model_checkpoint)
        if not self._load_unsharded(self.model, folder):
            super()._load_best_model()

    def _load_unsharded(self, model: Any, folder: str) -> bool:
        """Load the head, and the model if its weights were renamed when they were saved."""
        # Checkpoints of FSDP and DeepSpeed hold the whole model, head included, in its own names.
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return False
        load_projection(self._projection, folder)
        return load_renamed_weights(model, folder)

    # ---- the Hub ----

    def create_model_card(self, *args: Any, **named: Any) -> None:
        """Write the model card, `README.md` in `output_dir`; the arguments are those of `Trainer`.

        It tells the measured metrics, the settings of the loss and the training, how to load the
        model and whom to cite. With the `reports` extra installed, pictures of the training and
        of the embeddings seen in the last evaluation lie beside it.
        """
        super().create_model_card(*args, **named)
        if not self.is_world_process_zero():
            return
        folder = Path(cast(str, self.args.output_dir))
        names = class_names(cast(Any, self.model).config)
        keeps_best = self.args.load_best_model_at_end and self.state.best_global_step
        run = Run(
            name=self.hub_model_id or folder.absolute().name,
            class_names=names,
            trained_on=self.train_dataset,
            evaluated_on=self._held_out(),
            settings=training_settings(self._config, self._train_batch_size),
            log_history=self.state.log_history,
            best_step=self.state.best_global_step if keeps_best else None,
            pictures=self._draw(folder, names),
            is_contrasted=self._capture is not None,
            loads_with=loads_with(cast(nn.Module, self.model)),
            given=inspect.signature(super().create_model_card).bind(*args, **named).arguments,
        )
        metrics, sources = rewrite_model_card(folder / "README.md", run)
        if "accuracy" in metrics:
            token = self.args.hub_token
            write_benchmark_result(folder, sources["accuracy"], metrics["accuracy"], token)

    def _held_out(self) -> dict[str, Any]:
        """Data sets by the prefix of their metrics, those that were evaluated on last."""
        held_out: Any = self.eval_dataset
        parts = held_out.items() if isinstance(held_out, dict) else ()
        named = {f"eval_{name}": part for name, part in parts} or {"eval": held_out}
        return {**named, **self._evaluated_on}

    def _draw(self, folder: Path, class_names: list[str]) -> dict[str, Path]:
        if self._eval_sample is None:
            return {}
        pictures = {}
        file = folder / "training_curve.png"
        if draw_training_curve(self.state.log_history, file):
            pictures["The terms of the loss during training"] = file
        file = folder / "embeddings.png"
        if draw_embedding_map(*self._eval_sample.rows(), class_names, file):
            pictures["Embeddings of images that were evaluated on, t-SNE"] = file
        return pictures

    def push_to_hub(self, *args: Any, **named: Any) -> CommitInfo:
        """Save the model, write its card and upload both; the arguments are those of `Trainer`.

        Raises:
            HfHubHTTPError: if the Hub refuses. What was trained is saved all the same.
        """
        # Trainer saves only once the repository is made, which may fail, too.
        self.save_model(_internal_call=True)
        try:
            return super().push_to_hub(*args, **named)
        except Exception:
            self._explain_failed_push("The model")
            raise

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self.args.hub_always_push:
            # The files that an earlier upload still reads are about to be overwritten.
            self._finish_current_push()
        self._report_failed_pushes()
        head = Path(checkpoint_folder, PROJECTION_FILE)
        if self.is_world_process_zero() and head.is_file():
            shutil.copy(head, cast(str, self.args.output_dir))
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        self._report_failed_pushes()

    def _report_failed_pushes(self) -> None:
        """Log what uploads in the background, whose errors Trainer does not read, came to."""
        push = getattr(self, "push_in_progress", None)
        if push is None or not push.is_done():
            return
        for error in {
            str(error): error for job in push.jobs if (error := job.exception())
        }.values():
            self._explain_failed_push("A checkpoint", error)
        self.push_in_progress = None

    def _explain_failed_push(self, what: str, error: BaseException | None = None) -> None:
        logger.error(
            f"{what} was not uploaded, but nothing is lost: it is saved in output_dir. Once the "
            "Hub takes it again, call trainer.push_to_hub(), or run `hf upload "
            f"{self.hub_model_id or 'USER/MODEL'} OUTPUT_DIR`.",
            exc_info=error,
        )


def _with_one_number(batch: dict[str, Any]) -> dict[str, Any]:
    """Leave one number an image of soft labels, all of which Trainer would count."""
    labels = batch.get("labels")
    if isinstance(labels, Tensor) and labels.is_floating_point() and labels.dim() == 2:
        return {**batch, "labels": labels[:, 0]}
    return batch
