"""CLCE: cross-entropy fused with a label-aware contrastive loss with hard-negative weighting.

Source: Long et al., "CLCE: An Approach to Refining Cross-Entropy and Contrastive Learning for
Optimized Learning Fusion", ECAI 2024, arXiv 2402.14551. `contrastive.py` has the formula of the
contrastive term.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clce_hf.loss.distributed import contrastive_term
from clce_hf.loss.hyperparameters import Variant, check_hyperparameters
from clce_hf.loss.targets import IGNORE_INDEX, class_targets, is_labeled


def fuse(cross_entropy: Tensor, contrastive: Tensor, contrastive_weight: float) -> Tensor:
    """Return (1 - lambda) cross-entropy + lambda contrastive term (arXiv 2402.14551).

    Args:
        cross_entropy: a scalar.
        contrastive: a scalar.
        contrastive_weight: lambda in [0, 1].
    """
    return (1.0 - contrastive_weight) * cross_entropy + contrastive_weight * contrastive


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
    positive by the scalar product of its labels, negative by the rest, and an anchor with less
    than one positive in total is weighted by that total. Labels that are one-hot give exactly what
    class ids give.

    Args:
        embeddings: floating point, shape (n, d); need not be normalized. A zero vector counts as
            orthogonal to everything.
        labels: integers, shape (n,), samples labeled -100 being left out; or class probabilities,
            floating point, shape (n, classes), to which no gradient flows.
        temperature: divides the cosine similarities, > 0. The paper's value is 0.5.
        beta: concentration of the hard-negative weights, >= 0. The paper's value is 1; 0 weights
            all negatives alike, and then "out" is SupCon (arXiv 2004.11362, L_out).
        variant: "in" takes the mean over positives inside the logarithm (the paper), "out" outside.

    Returns:
        A scalar. Exactly 0, and still attached to the graph, where no anchor has a positive.

    Raises:
        ValueError: for a hyperparameter out of range, tensors of the wrong shape or dtype, or
            floating-point labels that are not probabilities.
    """
    _check_embeddings(embeddings)
    targets = class_targets(labels, embeddings)
    return contrastive_term(
        embeddings, targets, temperature=temperature, beta=beta, variant=variant
    ).loss


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
        labels: integers, shape (n,), samples labeled -100 being left out of both terms; or class
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
            "logits must have shape (n, classes) with one row per label, got "
            f"{tuple(logits.shape)} for labels of shape {tuple(labels.shape)}."
        )
    _check_embeddings(embeddings)
    targets = class_targets(labels, embeddings)
    contrastive = contrastive_term(
        embeddings, targets, temperature=temperature, beta=beta, variant=variant
    ).loss
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        total = F.cross_entropy(
            logits,
            targets.to(logits.dtype) if targets.is_floating_point() else targets,
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        # A mean over no label at all would be 0 / 0.
        cross_entropy = total / is_labeled(targets).sum().clamp_min(1)
    return fuse(cross_entropy, contrastive, contrastive_weight)


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


def _check_embeddings(embeddings: Tensor) -> None:
    if embeddings.dim() != 2 or embeddings.shape[1] == 0 or not embeddings.is_floating_point():
        raise ValueError(
            "embeddings must be floating point of shape (n, d) with d >= 1, got "
            f"{embeddings.dtype} of shape {tuple(embeddings.shape)}."
        )
