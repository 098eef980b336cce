"""The objective of a step: cross-entropy, the contrastive term, and the two fused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer
from transformers.trainer_pt_utils import LabelSmoother

from clce_hf.loss.clce import fuse
from clce_hf.loss.distributed import ContrastiveTerm, contrastive_term
from clce_hf.loss.hyperparameters import Hyperparameters
from clce_hf.loss.targets import is_labeled
from clce_hf.training.checks import check_finite, check_not_soft
from clce_hf.training.forward import Forwarded
from clce_hf.training.memory import EmbeddingMemory


class Terms(NamedTuple):
    """The loss of a batch and its terms, scalars; in training, their shares of an optimizer step.

    Attributes:
        loss: in training, to be differentiated; in evaluation, the cross-entropy.
        cross_entropy: or what `compute_loss_func` returns.
        contrastive: None if nothing is contrasted.
        num_positives: of each image, shape (n,); None if nothing is contrasted.
        fills_memory: whether later batches have more of the past to be contrasted with.
    """

    loss: Tensor
    cross_entropy: Tensor
    contrastive: Tensor | None = None
    num_positives: Tensor | None = None
    fills_memory: bool = False


@dataclass(frozen=True)
class Objective:
    """The loss that a trainer minimizes.

    Attributes:
        hyperparameters: of the loss.
        gather: whether training contrasts over the batches of all processes.
        memory: of past embeddings that training contrasts with, and that it fills; None for none.
        compute_loss_func: takes the place of the cross-entropy where it is not None.
        label_smoother: of Trainer; None without smoothing.
        num_processes: that gradients are averaged over, if `num_items` counts the images of all of
            them; 1 if each process counted only its own.
    """

    hyperparameters: Hyperparameters
    gather: bool
    memory: EmbeddingMemory | None
    compute_loss_func: Callable[..., Tensor] | None
    label_smoother: LabelSmoother | None
    num_processes: int

    def training_terms(
        self,
        forwarded: Forwarded,
        targets: Tensor,
        num_items: Tensor | int | None,
        share: float,
        step: int,
    ) -> Terms:
        """Return a micro-batch's share of the loss of its optimizer step.

        Args:
            forwarded: what the forward pass returned.
            targets: what `class_targets` returns.
            num_items: labeled images of the optimizer step, by which the cross-entropy is divided;
                None where they were not counted.
            share: of this micro-batch among those of the optimizer step.
            step: of the optimizer, for the error.

        Raises:
            FloatingPointError: if a term is not finite.
        """
        if isinstance(num_items, Tensor):
            num_items = num_items.clamp_min(1)  # of a step without labels, whose sum is 0
        cross_entropy = self._cross_entropy(forwarded, targets, num_items)
        if self.compute_loss_func is not None and not is_labeled(targets).any():
            cross_entropy = forwarded.logits.sum() * 0.0  # a mean over nothing is not a number
        if num_items is None and self.compute_loss_func is None:
            cross_entropy = cross_entropy * share
        if forwarded.embeddings is None:
            check_finite(cross_entropy, {"ce_loss": cross_entropy}, step)
            return Terms(cross_entropy, cross_entropy)
        fills_memory = self.memory is not None and not self.memory.is_full
        term = self._contrast(forwarded, targets, self.gather, self.memory)
        contrastive = share * term.loss
        loss = fuse(cross_entropy, contrastive, self.hyperparameters.contrastive_weight)
        check_finite(loss, {"ce_loss": cross_entropy, "contrastive_loss": contrastive}, step)
        return Terms(loss, cross_entropy, contrastive, term.num_positives, fills_memory)

    def evaluation_terms(
        self, forwarded: Forwarded, targets: Tensor, num_items: Tensor | int | None
    ) -> Terms:
        """Return the cross-entropy of a batch as its loss, and its contrastive term beside it.

        Args:
            forwarded: what the forward pass returned.
            targets: class ids, shape (n,).
            num_items: see `training_terms`.

        Raises:
            ValueError: for class probabilities.
        """
        check_not_soft(targets)
        cross_entropy = self._cross_entropy(forwarded, targets, num_items)
        if forwarded.embeddings is None:
            return Terms(cross_entropy, cross_entropy)
        # Processes may evaluate different numbers of batches: none waits for the others here.
        term = self._contrast(forwarded, targets, gather=False, memory=None)
        return Terms(cross_entropy, cross_entropy, term.loss, term.num_positives)

    def _cross_entropy(
        self, forwarded: Forwarded, targets: Tensor, num_items: Tensor | int | None
    ) -> Tensor:
        """Return the cross-entropy as Trainer has it: over `num_items` where that is known."""
        outputs, logits, _ = forwarded
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        smoother = self.label_smoother
        if self.compute_loss_func is not None:
            loss = self.compute_loss_func(outputs, targets, num_items_in_batch=num_items)
        elif smoother is not None and not targets.is_floating_point():
            loss = smoother({"logits": logits}, targets, num_items_in_batch=num_items)
        else:
            reduction = "mean" if num_items is None else "sum"
            smoothing = 0.0 if smoother is None else smoother.epsilon
            loss = F.cross_entropy(logits, targets, reduction=reduction, label_smoothing=smoothing)
            loss = loss if num_items is None else loss / num_items
        return loss if num_items is None else loss * self.num_processes

    def _contrast(
        self, forwarded: Forwarded, targets: Tensor, gather: bool, memory: EmbeddingMemory | None
    ) -> ContrastiveTerm:
        embeddings = cast(Tensor, forwarded.embeddings)
        if memory is not None:
            targets = memory.match(targets, forwarded.logits.shape[1])
        _, temperature, beta, variant = self.hyperparameters
        term = contrastive_term(
            embeddings,
            targets,
            temperature=temperature,
            beta=beta,
            variant=variant,
            gather=gather,
            past=None if memory is None else memory.keys(),
        )
        if memory is not None:
            memory.add(term.keys)
        return term


def objective_of(
    trainer: Trainer, hyperparameters: Hyperparameters, memory: EmbeddingMemory | None
) -> Objective:
    """Return the objective that the arguments of a trainer ask for.

    Args:
        trainer: with the arguments of CLCE.
        hyperparameters: of the loss.
        memory: of past embeddings; None to contrast a batch alone.
    """
    args: Any = trainer.args
    num_processes = trainer.accelerator.num_processes
    return Objective(
        hyperparameters,
        gather=args.gather_across_devices and num_processes > 1,
        memory=memory,
        compute_loss_func=trainer.compute_loss_func,
        label_smoother=cast(Any, trainer.label_smoother),
        num_processes=num_processes if args.average_tokens_across_devices else 1,
    )
