"""The label-aware contrastive sum and its gradient, walked in blocks of anchors.

Source: LACLN of Long et al., arXiv 2402.14551; the hard-negative weights follow Robinson et al.,
arXiv 2010.04592, the two placements of the mean over positives Khosla et al., arXiv 2004.11362
(L_in and L_out).

For anchor i with positives P (same label, not i itself), negatives N (another label) and
s_ij = z_i . z_j / temperature, z the embedding scaled to length 1:

    w_in   = |N| exp(beta s_in) / sum_{m in N} exp(beta s_im)
    "in"   : loss_i = -log( 1/|P| sum_{p in P} exp(s_ip) / Z_i )
    "out"  : loss_i = -1/|P| sum_{p in P} log( exp(s_ip) / Z_i )
    Z_i    = sum_{p in P} exp(s_ip) + sum_{n in N} w_in exp(s_in)

For class probabilities, every sum over P weighs pair ij by its agreement a_ij, every sum over N by
1 - a_ij, |P| and |N| are the sums of these, and loss_i is multiplied by min(|P|, 1). This is our
extension; labels that are one-hot make the formula above of it, bit by bit.

Everything is computed in log space, where the weighted negatives are
log|N| + LSE_n((1 + beta) s_in) - LSE_n(beta s_in). The gradient with respect to s is known in
closed form, so a block of anchors needs its similarities once, for loss and gradient together: the
same few buffers of a block's size serve the whole walk. Only where all keys are anchors and the
n x n slopes are few are they kept to its end: added to their transpose, they need one matrix
product with the keys instead of two, and each similarity is computed for one of its two anchors.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from clce_hf.loss.pairs import is_labelled, pairs_of

Variant = Literal["in", "out"]

_BLOCK_ELEMENTS = 2**21
"""Similarities in a block: 8 MiB in float32, which stays in a CPU's last-level cache."""

_MIN_BLOCK_ROWS = 64
"""Anchors in a block at least, so that reading all embeddings for it is worth the while."""

_KEPT_SLOPES = 2**24
"""Slopes that are kept at most, 64 MiB in float32: those of 4,096 keys."""

_PADDING = 16
"""Unused entries at the end of a row: where its length is a power of two, a column would come to
lie in few lines of the cache and be slow to read."""

_NORM_FLOOR = 1e-12


def to_unit_length(embeddings: Tensor) -> Tensor:
    """Scale each row to length 1 without overflow; a row below 1e-12 stays what it is, about 0.

    Args:
        embeddings: floating point, shape (n, d).

    Returns:
        Shape (n, d), float32 at least: float64 stays float64.
    """
    return _UnitLength.apply(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))


def contrastive_sum(
    keys: Tensor,
    labels: Tensor,
    anchors: range,
    temperature: float,
    beta: float,
    variant: Variant,
) -> Tensor:
    """Sum of the losses of some anchors, each contrasted against all keys.

    Args:
        keys: of length 1, shape (n, d), float32 or float64.
        labels: integers, shape (n,), or class probabilities of the dtype of the keys, shape
            (n, classes).
        anchors: which rows of the keys are anchors; the step is 1. An anchor without a positive
            adds 0, but the sum stays attached to the keys.
        temperature: divides the similarities.
        beta: concentration of the hard-negative weights.
        variant: "in" or "out".

    Returns:
        A scalar, differentiable once with respect to the keys.
    """
    with torch.autocast(keys.device.type, enabled=False):
        return _ContrastiveSum.apply(keys, labels, anchors, temperature, beta, variant)


class _UnitLength(torch.autograd.Function):
    """Autograd alone would hold twice as many tensors of the embeddings' size.

    The largest entry of a row is divided out first, so that squares neither overflow nor vanish;
    what remains has a length of at least 1. The gradient of a (nearly) zero row must not blow up by
    1 / length: it passes as it is.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        scale = embeddings.abs().amax(dim=1, keepdim=True)
        is_zero = scale <= _NORM_FLOOR
        scale.masked_fill_(is_zero, 1.0)
        unit = embeddings / scale
        length = unit.norm(dim=1, keepdim=True).masked_fill_(is_zero, 1.0)
        unit.div_(length)
        ctx.save_for_backward(unit, scale, length, is_zero)
        return unit

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (gradient,) = grad_outputs
        unit, scale, length, is_zero = ctx.saved_tensors
        along = (gradient * unit).sum(1, keepdim=True).masked_fill_(is_zero, 0.0)
        return torch.addcmul(gradient, unit, along, value=-1).div_(length).div_(scale)


class _ContrastiveSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keys: Tensor,
        labels: Tensor,
        anchors: range,
        temperature: float,
        beta: float,
        variant: Variant,
    ) -> Tensor:
        counted = is_labelled(labels)
        total = keys.new_zeros(())
        gradient = torch.zeros_like(keys) if ctx.needs_input_grad[0] else None
        num_keys = keys.shape[0]
        rows = max(1, min(len(anchors), _block_rows(*keys.shape)))
        are_kept = gradient is not None and len(anchors) == num_keys and num_keys**2 <= _KEPT_SLOPES
        buffers = [_empty(rows, keys) for _ in range(2)]
        all_slopes = _empty(num_keys if are_kept else rows, keys)
        for start in range(anchors.start, anchors.stop, rows):
            block = range(start, min(start + rows, anchors.stop))
            own = slice(block.start, block.stop)
            similarities, scratch = (buffer[: len(block)] for buffer in buffers)
            slopes = all_slopes[own] if are_kept else all_slopes[: len(block)]
            if are_kept and rows < num_keys:
                _mirror_similarities(similarities, all_slopes, keys, block)
            else:
                torch.mm(keys[own], keys.T, out=similarities)
            similarities.div_(temperature)
            losses = _anchor_losses(
                similarities, labels, counted, block, beta, variant, slopes, scratch
            )
            total += losses.sum()
            if gradient is not None:
                slopes.div_(temperature)
                if not are_kept:
                    gradient[own].addmm_(slopes, keys)
                    gradient.addmm_(slopes.T, keys[own])
        if gradient is not None and are_kept:
            _add_symmetric_product(gradient, all_slopes, keys, rows)
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
        return gradient * grad_outputs[0], None, None, None, None, None


def _block_rows(num_keys: int, dim: int) -> int:
    """Anchors in a block: what fills the cache, but enough for a matrix product of that depth."""
    return max(_BLOCK_ELEMENTS // max(num_keys, 1), _MIN_BLOCK_ROWS, dim // 4)


def _empty(rows: int, keys: Tensor) -> Tensor:
    """Uninitialised rows of an entry a key."""
    num_keys = len(keys)
    return keys.new_empty(rows, num_keys + _PADDING)[:, :num_keys]


def _mirror_similarities(
    similarities: Tensor, all_slopes: Tensor, keys: Tensor, block: range
) -> None:
    """Fill in the similarities of a block's anchors: to those before it, they are known.

    What the anchors after it will need is left in `all_slopes`, shape (n, n), which have no slopes
    yet.
    """
    own = slice(block.start, block.stop)
    similarities[:, : block.start] = all_slopes[own, : block.start]
    torch.mm(keys[own], keys[block.start :].T, out=similarities[:, block.start :])
    all_slopes[block.stop :, own] = similarities[:, block.stop :].T


def _add_symmetric_product(gradient: Tensor, slopes: Tensor, keys: Tensor, rows: int) -> None:
    """Add (slopes + slopes.T) @ keys in blocks of rows; slopes, shape (n, n), are overwritten."""
    for start in range(0, len(keys), rows):
        stop = start + rows
        block = slopes[start:stop, start:]
        square = block[:, :rows]
        square.copy_(square + square.T)
        gradient[start:stop].addmm_(square, keys[start:stop])
        if stop >= len(keys):
            break
        below = slopes[stop:, start:stop].add_(block[:, rows:].T)
        gradient[start:stop].addmm_(below.T, keys[stop:])
        gradient[stop:].addmm_(below, keys[start:stop])


def _anchor_losses(
    similarities: Tensor,
    labels: Tensor,
    counted: Tensor,
    block: range,
    beta: float,
    variant: Variant,
    slopes: Tensor,
    scratch: Tensor,
) -> Tensor:
    """Loss of each anchor, shape (rows, 1); its slope with respect to each similarity in `slopes`.

    The similarities (rows, n) and `scratch`, of that shape, are overwritten, too. An anchor without
    a positive gets zeros.
    """
    to_positives, to_negatives = slopes, scratch
    nothing = similarities.new_full((), -math.inf)
    pairs = pairs_of(labels, block, counted, similarities.dtype)
    is_anchor = pairs.num_positives > 0
    anchor_weight = pairs.num_positives.clamp_max(1.0)
    each = is_anchor / pairs.num_positives.masked_fill(~is_anchor, 1.0)
    similarities.diagonal(block.start).fill_(-math.inf)
    similarities.masked_fill_(~counted, -math.inf)

    torch.where(pairs.is_positive, similarities, nothing, out=to_positives)
    nearest_positive = _largest(to_positives)
    positive_mean = each.new_zeros(())
    if variant == "out":
        finite = to_positives.nan_to_num(neginf=0.0)
        positive_mean = _weigh(finite, pairs.positive_weights).sum(1, keepdim=True) * each
    to_positives.sub_(nearest_positive).exp_()  # whose multiples their slopes are
    positive_sum = _sum_or_one(_weigh(to_positives, pairs.positive_weights), is_anchor)

    has_negative = pairs.num_negatives > 0
    torch.where(pairs.is_no_negative, nothing, similarities, out=to_negatives)
    nearest_negative = _largest(to_negatives)
    to_negatives.sub_(nearest_negative)
    negative_exp = torch.mul(to_negatives, 1.0 + beta, out=similarities).exp_()
    negative_sum = _sum_or_one(_weigh(negative_exp, pairs.negative_weights), has_negative)
    weight_exp = to_negatives.mul_(beta).exp_()
    if beta < torch.finfo(weight_exp.dtype).tiny:
        # Such a beta may be flushed to 0, and 0 * -inf, where there is no negative, made NaN.
        weight_exp.nan_to_num_(nan=0.0)
    weight_sum = _sum_or_one(_weigh(weight_exp, pairs.negative_weights), has_negative)

    log_positives = nearest_positive + positive_sum.log()
    log_negatives = nearest_negative + (pairs.num_negatives * negative_sum / weight_sum).log()
    odds = log_negatives - log_positives
    losses = torch.logaddexp(odds, torch.zeros_like(odds))  # log Z_i - LSE_p(s_ip)
    share_of_negatives = odds.sigmoid() * anchor_weight

    if variant == "in":
        losses += pairs.num_positives.log()
        slopes.mul_(-share_of_negatives / positive_sum)
    else:
        losses += log_positives - positive_mean
        slopes.mul_((-odds).sigmoid() * anchor_weight / positive_sum)
        slopes.addcmul_(pairs.agreement, each * anchor_weight, value=-1)
    slopes.addcmul_(negative_exp, (1.0 + beta) * share_of_negatives / negative_sum)
    slopes.addcmul_(weight_exp, -beta * share_of_negatives / weight_sum)
    return losses.masked_fill_(~is_anchor, 0.0).mul_(anchor_weight)


def _weigh(exponentials: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply in place; weights that are all 1 are None."""
    return exponentials if weights is None else exponentials.mul_(weights)


def _largest(masked: Tensor) -> Tensor:
    """Largest entry of each row; 0 where all are -inf, which could not be subtracted."""
    largest = masked.amax(1, keepdim=True)
    return largest.masked_fill_(largest == -math.inf, 0.0)


def _sum_or_one(exponentials: Tensor, has_any: Tensor) -> Tensor:
    """Sum each row; 1 where there is nothing to sum, which is divided by and taken the log of."""
    return exponentials.sum(1, keepdim=True).masked_fill_(~has_any, 1.0)
