"""Every optimizer step of a training with memory, written out from what the training saw."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import TrainerCallback, default_data_collator

from clce_hf.models.projection import ProjectionHead
from support.reference import contrastive_reference, soft_contrastive_reference
from support.tiny import NUM_CLASSES, vit

Past = list[tuple[Tensor, Any]]


class Recorder(TrainerCallback):
    """Keeps the batches in order, and the weights and gradients that each optimizer step sees.

    Args:
        relabel: changes the labels of a batch, given how many came before.
    """

    def __init__(self, relabel: Any = lambda labels, index: labels) -> None:
        self.batches: list[dict[str, Tensor]] = []
        self.steps: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
        self._relabel = relabel

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = default_data_collator(rows)
        batch["labels"] = self._relabel(batch["labels"], len(self.batches))
        self.batches.append(batch)
        return batch

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        named = {name: value for name, value in model.named_parameters() if value.grad is not None}
        self.steps.append(
            (
                {name: value.detach().clone() for name, value in named.items()},
                {name: value.grad.clone() for name, value in named.items()},
            )
        )


class ByHand:
    """A ViT in float64 with the weights of a step, and the past as a plain list of images.

    Args:
        weights: of the step.
        args: of the training.
    """

    def __init__(self, weights: dict[str, Tensor], args: Any) -> None:
        self.args = args
        self.model: Any = vit().double()
        if args.projection_dim is not None:
            self.model.clce_projection_head = ProjectionHead(32, args.projection_dim).double()
        self.model.load_state_dict(weights)

    def contrastive(self, batch: dict[str, Tensor], past: Past) -> tuple[Tensor, Tensor]:
        """Return the loss of a micro-batch and its logits; it then is the newest of the past."""
        pooled = self.model.vit(batch["pixel_values"].double()).last_hidden_state[:, 0]
        logits = self.model.classifier(pooled)
        if self.args.projection_dim is not None:
            pooled = self.model.clce_projection_head(pooled)
        own = list(zip(pooled, batch["labels"].tolist(), strict=True))
        rows, labels = zip(*own, *past[-self.args.memory_size :], strict=True)
        reference: Any = contrastive_reference
        if any(isinstance(label, list) for label in labels):
            eye = torch.eye(NUM_CLASSES).tolist()
            labels = [label if isinstance(label, list) else eye[label] for label in labels]
            reference = soft_contrastive_reference
        hyperparameters = (self.args.temperature, self.args.beta, self.args.variant)
        loss = reference(torch.stack(rows), list(labels), *hyperparameters, num_anchors=len(own))
        past.extend((row.detach(), label) for row, label in own)
        return loss, logits

    def gradients(self, micro_batches: list[dict[str, Tensor]], past: Past) -> dict[str, Tensor]:
        """Return the gradients of an optimizer step."""
        weight = self.args.contrastive_weight
        labels = [batch["labels"] for batch in micro_batches]
        num_labels = sum(int((y != -100).sum()) if y.dim() == 1 else len(y) for y in labels)
        total: Any = 0.0
        for batch, targets in zip(micro_batches, labels, strict=True):
            contrastive, logits = self.contrastive(batch, past)
            targets = targets if targets.dim() == 1 else targets.double()
            cross_entropy = F.cross_entropy(logits, targets, reduction="sum") / num_labels
            total = total + (1 - weight) * cross_entropy
            total = total + weight * contrastive / len(micro_batches)
        total.backward()
        return {name: value.grad.float() for name, value in self.model.named_parameters()}
