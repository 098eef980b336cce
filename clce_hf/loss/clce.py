"""CLCE: cross-entropy fused with a label-aware contrastive loss with hard-negative weighting.

Source: Long et al., "CLCE: An Approach to Refining Cross-Entropy and Contrastive Learning for
Optimized Learning Fusion", ECAI 2024, arXiv 2402.14551. `contrastive.py` has the formula of the
contrastive term.
"""

import math
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clce_hf.loss.contrastive import Variant, contrastive_sum, to_unit_length
from clce_hf.loss.pairs import (
    IGNORE_INDEX,
    class_probabilities,
    count_anchors,
    count_positives,
    is_labelled,
)


def check_hyperparameters(
    contrastive_weight: float = 0.9,
    temperature: float = 0.5,
    beta: float = 1.0,
    variant: str = "in",
) -> None:
    """Raise `ValueError`, naming the argument and its range, unless all four are in range."""
    if not 0.0 <= contrastive_weight <= 1.0:
        raise ValueError(
            f"contrastive_weight must lie in [0, 1], got {contrastive_weight}: 0 is cross-entropy "
            "alone, the paper uses 0.9."
        )
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ValueError(
            f"temperature must be positive and finite, got {temperature}: the paper uses 0.5."
        )
    if not (beta >= 0.0 and math.isfinite(beta)):
        raise ValueError(
            f"beta must be finite and not negative, got {beta}: 0 weights all negatives alike, "
            "the paper uses 1."
        )
    if variant not in get_args(Variant):
        raise ValueError(
            f'variant must be "in" (mean over positives inside the log) or "out", got {variant!r}.'
        )


def label_aware_contrastive_loss(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.5,
    beta: float = 1.0,
    variant: Variant = "in",
) -> Tensor:
    """Label-aware contrastive loss with hard-negative weighting (LACLN, arXiv 2402.14551).

    The mean over the anchors that have a positive. Computed in float32 at least, whatever the
    dtype of the embeddings and under any autocast; float64 stays float64. Differentiable once.

    Class probabilities, as mixup and CutMix make them, are our extension: a pair of samples is
    positive by the scalar product of its labels, negative by the rest, and an anchor whose
    positives are less than one in all counts that much. Labels that are one-hot give exactly what
    class ids give.

    Args:
        embeddings: floating point, shape (n, d); need not be normalised. A zero vector counts as
            orthogonal to everything.
        labels: integers, shape (n,), samples labelled -100 being left out; or class probabilities,
            floating point, shape (n, classes), to which no gradient flows.
        temperature: divides the cosine similarities, > 0. The paper's value is 0.5.
        beta: concentration of the hard-negative weights, >= 0. The paper's value is 1; 0 weights
            all negatives alike, and then "out" is SupCon (arXiv 2004.11362, L_out).
        variant: "in" takes the mean over positives inside the logarithm (the paper), "out" outside.

    Returns:
        A scalar. Exactly 0, and still attached to the graph, where no anchor has a positive.

    Raises:
        ValueError: for a hyperparameter out of range, tensors of the wrong shape or dtype, or
            labels of floating point that are no probabilities.
    """
    check_hyperparameters(temperature=temperature, beta=beta, variant=variant)
    labels = _checked_labels(embeddings, labels)
    keys, anchors = to_unit_length(embeddings), range(len(labels))
    total = contrastive_sum(keys, labels, anchors, temperature, beta, variant)
    return total / count_anchors(count_positives(labels)).clamp_min(1)


def clce_loss(
    logits: Tensor,
    embeddings: Tensor,
    labels: Tensor,
    *,
    contrastive_weight: float = 0.9,
    temperature: float = 0.5,
    beta: float = 1.0,
    variant: Variant = "in",
    label_smoothing: float = 0.0,
) -> Tensor:
    """CLCE (arXiv 2402.14551): (1 - lambda) cross-entropy + lambda label-aware contrastive loss.

    Args:
        logits: floating point, shape (n, classes).
        embeddings: the vectors that enter the classification head, shape (n, d).
        labels: integers, shape (n,), samples labelled -100 being left out of both terms; or class
            probabilities, floating point, shape (n, classes).
        contrastive_weight: lambda in [0, 1]. The paper's value is 0.9.
        temperature: tau, see `label_aware_contrastive_loss`.
        beta: see there.
        variant: see there.
        label_smoothing: of the cross-entropy, in [0, 1].

    Returns:
        A scalar, float32 at least; attached to both inputs also where lambda is 0 or 1, since
        distributed training needs every parameter in the graph.

    Raises:
        ValueError: for a hyperparameter out of range or tensors of the wrong shape or dtype.
    """
    check_hyperparameters(contrastive_weight, temperature, beta, variant)
    if logits.dim() != 2 or logits.shape[: labels.dim()] != labels.shape:
        raise ValueError(
            f"logits must have shape (n, classes) with one row a label, got {tuple(logits.shape)} "
            f"for labels of shape {tuple(labels.shape)}."
        )
    contrastive = label_aware_contrastive_loss(
        embeddings, labels, temperature=temperature, beta=beta, variant=variant
    )
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        cross_entropy = (
            F.cross_entropy(
                logits,
                labels.to(logits.dtype) if labels.is_floating_point() else labels.long(),
                ignore_index=IGNORE_INDEX,
                reduction="sum",
                label_smoothing=label_smoothing,
            )
            # A mean over no label at all would be 0 / 0.
            / is_labelled(labels).sum().clamp_min(1)
        )
    return (1.0 - contrastive_weight) * cross_entropy + contrastive_weight * contrastive


class CLCELoss(nn.Module):
    """`clce_loss` as a module that keeps the hyperparameters; arguments as there."""

    def __init__(
        self,
        contrastive_weight: float = 0.9,
        temperature: float = 0.5,
        beta: float = 1.0,
        variant: Variant = "in",
    ) -> None:
        super().__init__()
        check_hyperparameters(contrastive_weight, temperature, beta, variant)
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.beta = beta
        self.variant: Variant = variant

    def forward(self, logits: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits (n, classes), embeddings (n, d) and labels."""
        return clce_loss(
            logits,
            embeddings,
            labels,
            contrastive_weight=self.contrastive_weight,
            temperature=self.temperature,
            beta=self.beta,
            variant=self.variant,
        )

    def extra_repr(self) -> str:
        """Show the hyperparameters in the module's repr."""
        return (
            f"contrastive_weight={self.contrastive_weight}, temperature={self.temperature}, "
            f"beta={self.beta}, variant={self.variant!r}"
        )


def _checked_labels(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Return the labels, class probabilities scaled to sum to 1; refuse what does not fit."""
    if embeddings.dim() != 2 or embeddings.shape[1] == 0 or not embeddings.is_floating_point():
        raise ValueError(
            "embeddings must be floating point of shape (n, d) with d >= 1, got "
            f"{embeddings.dtype} of shape {tuple(embeddings.shape)}."
        )
    is_soft = labels.is_floating_point()
    if labels.dim() != 1 + is_soft or labels.dtype == torch.bool:
        raise ValueError(
            "labels must be integer class ids of shape (n,) or class probabilities, floating "
            f"point of shape (n, classes), got {labels.dtype} of shape {tuple(labels.shape)}."
        )
    if labels.shape[0] != embeddings.shape[0]:
        raise ValueError(
            f"embeddings and labels must have one row a sample, got {embeddings.shape[0]} "
            f"embeddings and {labels.shape[0]} labels."
        )
    return class_probabilities(labels, embeddings) if is_soft else labels
