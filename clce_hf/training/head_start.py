"""Start the classification layer from the class means of the training embeddings.

The embeddings are those of a few images of each class, as training reads them, in evaluation mode.
Nothing else changes: see `beside_training.py`, and no hook stays on the model.
"""

from typing import Any, cast

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer

from clce_hf.loss.targets import class_probabilities, class_targets, is_labeled
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.head_init import class_mean_weights
from clce_hf.models.linear_layer import linear_parameters
from clce_hf.training.beside_training import beside_training, loader_beside, with_progress
from clce_hf.training.head_start_rows import check_same_classes, rows_to_start_from
from clce_hf.training.label_range import check_in_range
from clce_hf.training.labels import split_labels


class HeadStartTrainer(Trainer):
    """Trainer that sets the classification layer at the start of a run, as `head_init` says."""

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None
    ) -> Any:
        # Before anything wraps the model, and after model_init and a trial's arguments.
        if cast(Any, self.args).head_init is not None and resume_from_checkpoint is None:
            start_from_class_means(self)
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)


def start_from_class_means(trainer: Trainer) -> None:
    """Set the weights of the classification layer, alike in every process.

    The processes share the images.

    Raises:
        ValueError: if the layer cannot be found or its weights cannot be set, if the training data
            has no length or no readable labels, or other labels than those of the batches, if not
            every process has the model's weights, or if embeddings are not finite.
    """
    _check_has_weights(trainer)
    model = cast(nn.Module, trainer.model)
    subset, labels = rows_to_start_from(trainer)
    capture = EmbeddingCapture(model, cast(Any, trainer.args).classification_layer)
    weight, bias = linear_parameters(
        model, capture.name, doing="head_init='class_means' sets", otherwise="leave head_init out"
    )
    device = trainer.accelerator.device
    with capture, beside_training(trainer):
        embeddings, targets = _embeddings(trainer, model, capture, subset)
    _check_is_finite(embeddings)
    check_same_classes(trainer.train_dataset, labels, targets)
    check_in_range(targets, len(weight))
    start = weight.new_zeros(len(weight), embeddings.shape[1]), weight.new_zeros(len(weight))
    if trainer.accelerator.is_main_process:
        start = class_mean_weights(embeddings, targets, len(weight), has_bias=bias is not None)
    rows, offsets = broadcast(tuple(tensor.float().to(device) for tensor in start))
    with torch.no_grad():
        weight.copy_(rows.view_as(weight))
        if bias is not None:
            bias.copy_(offsets)


def _check_has_weights(trainer: Trainer) -> None:
    plugin = trainer.accelerator.state.fsdp_plugin if trainer.is_fsdp_enabled else None
    if plugin is not None and plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "head_init runs the model in every process before it is sharded, but with "
            "cpu_ram_efficient_loading of fsdp_config only one has its weights: set it to false, "
            "or leave head_init out."
        )


def _check_is_finite(embeddings: Tensor) -> None:
    if not embeddings.isfinite().all():
        raise ValueError(
            "head_init averages embeddings, and some are not finite: check the images for NaN, or "
            "take bf16 for fp16."
        )


def _embeddings(
    trainer: Trainer, model: nn.Module, capture: EmbeddingCapture, subset: Any
) -> tuple[Tensor, Tensor]:
    """Return embeddings, float32 of shape (n, d), and their targets, in every process."""
    accelerator = trainer.accelerator
    parts: list[tuple[Tensor, Tensor]] = []
    for batch in with_progress(trainer, loader_beside(trainer, subset, "head_init"), "Class means"):
        inputs, labels = split_labels(batch, trainer.label_names, model)
        with accelerator.autocast():
            _, logits, embeddings = capture.run_for_logits(model, inputs)
        pair = embeddings.float(), class_targets(labels, logits, logits.shape[1])
        parts.append(tuple(t.cpu() for t in accelerator.gather_for_metrics(pair)))
    return _joined(parts, logits.shape[1])


def _joined(parts: list[tuple[Tensor, Tensor]], num_classes: int) -> tuple[Tensor, Tensor]:
    """Join the labeled rows; where only some batches are mixed, class ids become one-hot."""
    parts = [(rows[is_labeled(labels)], labels[is_labeled(labels)]) for rows, labels in parts]
    embeddings, targets = (list(tensors) for tensors in zip(*parts, strict=True))
    if len({labels.dim() for labels in targets}) > 1:
        targets = [
            labels if labels.dim() > 1 else class_probabilities(labels, num_classes, torch.float32)
            for labels in targets
        ]
    return torch.cat(embeddings), torch.cat(targets)
