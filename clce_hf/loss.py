"""CLCE: cross-entropy fused with a label-aware contrastive loss with hard-negative weighting.

Source: Long et al., "CLCE: An Approach to Refining Cross-Entropy and Contrastive Learning for
Optimized Learning Fusion", ECAI 2024, arXiv 2402.14551. The hard-negative weights follow Robinson
et al., arXiv 2010.04592; the two placements of the mean over positives follow Khosla et al., arXiv
2004.11362 (L_in and L_out).

For anchor i with positives P (same label, not i itself), negatives N (another label) and
s_ij = z_i . z_j / temperature, z the embedding scaled to length 1:

    w_in   = |N| exp(beta s_in) / sum_{m in N} exp(beta s_im)
    "in"   : loss_i = -log( 1/|P| sum_{p in P} exp(s_ip) / Z_i )
    "out"  : loss_i = -1/|P| sum_{p in P} log( exp(s_ip) / Z_i )
    Z_i    = sum_{p in P} exp(s_ip) + sum_{n in N} w_in exp(s_in)

Everything is computed in log space, where the weighted negatives are
log|N| + LSE_n((1 + beta) s_in) - LSE_n(beta s_in). The gradient with respect to s is known in
closed form, so the similarities are walked in blocks of anchors, loss and gradient together, and
the n x n matrix is never kept.
"""

import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Variant = Literal["in", "out"]

IGNORE_INDEX = -100
"""Label of samples that take part in neither term, as in `torch.nn.functional.cross_entropy`."""

_BLOCK_ELEMENTS = 2**20
"""Similarities held at once: about 4 MiB in float32, which stays in a CPU's last-level cache."""

_MIN_BLOCK_ROWS = 64
"""Anchors in a block at least, so that reading all embeddings for it is worth the while."""

_NORM_FLOOR = 1e-12


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


def count_positives(labels: Tensor) -> Tensor:
    """Number of other samples that share each sample's label.

    Args:
        labels: integers, shape (n,).

    Returns:
        int64, shape (n,); 0 where the label is `IGNORE_INDEX`.
    """
    _, class_of, class_sizes = labels.unique(return_inverse=True, return_counts=True)
    return (class_sizes[class_of] - 1).masked_fill(labels == IGNORE_INDEX, 0)


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

    Args:
        embeddings: floating point, shape (n, d); need not be normalised. A zero vector counts as
            orthogonal to everything.
        labels: integers, shape (n,). Samples labelled -100 are left out.
        temperature: divides the cosine similarities, > 0. The paper's value is 0.5.
        beta: concentration of the hard-negative weights, >= 0. The paper's value is 1; 0 weights
            all negatives alike, and then "out" is SupCon (arXiv 2004.11362, L_out).
        variant: "in" takes the mean over positives inside the logarithm (the paper), "out" outside.

    Returns:
        A scalar. Exactly 0, and still attached to the graph, where no anchor has a positive.

    Raises:
        ValueError: for a hyperparameter out of range or tensors of the wrong shape or dtype.
    """
    check_hyperparameters(temperature=temperature, beta=beta, variant=variant)
    _check_batch(embeddings, labels)
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = _to_unit_length(embeddings.to(_loss_dtype(embeddings)))
        num_anchors = (count_positives(labels) > 0).sum().clamp_min(1)
        total = _ContrastiveSum.apply(unit, labels, temperature, beta, variant)
        return total / num_anchors


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
        labels: integers, shape (n,). Samples labelled -100 are left out of both terms.
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
    if logits.dim() != 2 or logits.shape[0] != labels.shape[0]:
        raise ValueError(
            f"logits must have shape (n, classes) with one row a label, got {tuple(logits.shape)} "
            f"for labels of shape {tuple(labels.shape)}."
        )
    contrastive = label_aware_contrastive_loss(
        embeddings, labels, temperature=temperature, beta=beta, variant=variant
    )
    with torch.autocast(logits.device.type, enabled=False):
        # A mean over no label at all would be 0 / 0.
        num_labels = (labels != IGNORE_INDEX).sum().clamp_min(1)
        cross_entropy = (
            F.cross_entropy(
                logits.to(_loss_dtype(logits)),
                labels.long(),
                ignore_index=IGNORE_INDEX,
                reduction="sum",
                label_smoothing=label_smoothing,
            )
            / num_labels
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
        """Return the scalar loss of logits (n, classes), embeddings (n, d) and labels (n,)."""
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


def _check_batch(embeddings: Tensor, labels: Tensor) -> None:
    if embeddings.dim() != 2 or embeddings.shape[1] == 0 or not embeddings.is_floating_point():
        raise ValueError(
            "embeddings must be floating point of shape (n, d) with d >= 1, got "
            f"{embeddings.dtype} of shape {tuple(embeddings.shape)}."
        )
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            "labels must be integer class ids of shape (n,), got "
            f"{labels.dtype} of shape {tuple(labels.shape)}."
        )
    if labels.shape[0] != embeddings.shape[0]:
        raise ValueError(
            f"embeddings and labels must have one row a sample, got {embeddings.shape[0]} "
            f"embeddings and {labels.shape[0]} labels."
        )


def _loss_dtype(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _to_unit_length(embeddings: Tensor) -> Tensor:
    """Scale each row to length 1 without overflow; a row below 1e-12 stays what it is, about 0.

    The largest entry is divided out first: the direction does not depend on it, so no gradient
    goes through it, and squares neither overflow nor vanish. What remains has a length of at least
    1, except for a (nearly) zero row, whose gradient must not blow up by 1 / length.
    """
    scale = embeddings.detach().abs().amax(dim=1, keepdim=True)
    is_zero = scale <= _NORM_FLOOR
    embeddings = embeddings / scale.masked_fill(is_zero, 1.0)
    return embeddings / embeddings.norm(dim=1, keepdim=True).masked_fill(is_zero, 1.0)


class _ContrastiveSum(torch.autograd.Function):
    """Sum of the anchors' losses; the gradient is made in the same walk over the similarities."""

    @staticmethod
    def forward(
        ctx: Any, unit: Tensor, labels: Tensor, temperature: float, beta: float, variant: Variant
    ) -> Tensor:
        n = unit.shape[0]
        counted = labels != IGNORE_INDEX
        total = unit.new_zeros(())
        gradient = torch.zeros_like(unit) if ctx.needs_input_grad[0] else None
        rows = max(_MIN_BLOCK_ROWS, _BLOCK_ELEMENTS // max(n, 1))
        for start in range(0, n, rows):
            anchors = unit[start : start + rows]
            similarities = (anchors @ unit.T).div_(temperature)
            same = labels[start : start + rows, None] == labels
            negatives = (~same).logical_and_(counted)
            positives = same.logical_and_(counted[start : start + rows, None])
            positives.diagonal(start).fill_(False)
            losses, slopes = _anchor_losses(similarities, positives, negatives, beta, variant)
            total += losses.sum()
            if gradient is not None:
                slopes.div_(temperature)
                gradient[start : start + rows].addmm_(slopes, unit)
                gradient.addmm_(slopes.T, anchors)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        # The saved gradient has no graph of its own: a second derivative would miss it silently.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The label-aware contrastive loss is differentiable once: call backward or grad "
                "without create_graph=True."
            )
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None, None


def _anchor_losses(
    similarities: Tensor, positives: Tensor, negatives: Tensor, beta: float, variant: Variant
) -> tuple[Tensor, Tensor]:
    """Loss of each anchor, shape (rows, 1), and its slope with respect to each similarity.

    `positives` and `negatives` are masks of the shape of the similarities, (rows, n). An anchor
    without a positive gets zeros.
    """
    dtype = similarities.dtype
    num_positives = positives.sum(1, keepdim=True, dtype=dtype)
    num_negatives = negatives.sum(1, keepdim=True, dtype=dtype)
    is_anchor = num_positives > 0

    to_positives, nearest_positive = _shift_by_maximum(similarities, positives)
    positive_exp = to_positives.exp()
    positive_sum = _sum_or_one(positive_exp, is_anchor)
    to_negatives, nearest_negative = _shift_by_maximum(similarities, negatives)
    negative_exp = ((1.0 + beta) * to_negatives).exp_()
    negative_sum = _sum_or_one(negative_exp, num_negatives > 0)
    # Outside the mask beta = 0 makes 0 * -inf, which is NaN.
    weight_exp = (beta * to_negatives).exp_().masked_fill_(~negatives, 0.0)
    weight_sum = _sum_or_one(weight_exp, num_negatives > 0)

    log_positives = nearest_positive + positive_sum.log()
    log_negatives = nearest_negative + (num_negatives * negative_sum / weight_sum).log()
    odds = log_negatives - log_positives
    losses = torch.logaddexp(odds, torch.zeros_like(odds))  # log Z_i - LSE_p(s_ip)
    share_of_negatives = odds.sigmoid() * is_anchor

    if variant == "in":
        losses += num_positives.log()
        slopes = positive_exp.mul_(-share_of_negatives / positive_sum)
    else:
        num_positives = num_positives.clamp_min(1)
        losses += log_positives - (similarities * positives).sum(1, keepdim=True) / num_positives
        slopes = positive_exp.mul_((-odds).sigmoid() / positive_sum).sub_(positives / num_positives)
    slopes.addcmul_(negative_exp, (1.0 + beta) * share_of_negatives / negative_sum)
    slopes.addcmul_(weight_exp, -beta * share_of_negatives / weight_sum)
    return losses.masked_fill(~is_anchor, 0.0), slopes


def _shift_by_maximum(similarities: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract each row's largest masked entry; -inf outside the mask."""
    masked = similarities.masked_fill(~mask, -math.inf)
    largest = masked.amax(1, keepdim=True)
    largest = largest.masked_fill(largest == -math.inf, 0.0)
    return masked.sub_(largest), largest


def _sum_or_one(exponentials: Tensor, has_any: Tensor) -> Tensor:
    """Sum each row; 1 where there is nothing to sum, which is divided by and taken the log of."""
    return exponentials.sum(1, keepdim=True).masked_fill(~has_any, 1.0)
