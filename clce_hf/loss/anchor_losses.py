"""The losses of a block of anchors and their slopes, in closed form and in log space.

The formula and its sources stand in `contrastive.py`.
"""

import math

import torch
from torch import Tensor

from clce_hf.loss.hyperparameters import Variant
from clce_hf.loss.pairs import pairs_of


def anchor_losses(
    similarities: Tensor,
    targets: Tensor,
    counted: Tensor,
    block: range,
    beta: float,
    variant: Variant,
    slopes: Tensor,
    scratch: Tensor,
) -> Tensor:
    """Return the loss of each anchor, shape (rows, 1), and write its slopes into `slopes`.

    A slope is the derivative with respect to a similarity. The similarities (rows, n) and
    `scratch`, of the same shape, are overwritten, too. An anchor without a positive gets zeros.
    """
    to_positives, to_negatives = slopes, scratch
    excluded = similarities.new_full((), -math.inf)
    pairs = pairs_of(targets, block, counted, similarities.dtype)
    is_anchor = pairs.num_positives > 0
    anchor_weight = pairs.num_positives.clamp_max(1.0)
    inv_num_positives = is_anchor / pairs.num_positives.masked_fill(~is_anchor, 1.0)
    similarities.diagonal(block.start).fill_(-math.inf)
    similarities.masked_fill_(~counted, -math.inf)

    torch.where(pairs.is_positive, similarities, excluded, out=to_positives)
    nearest_positive = _largest(to_positives)
    positive_mean = inv_num_positives.new_zeros(())
    if variant == "out":
        finite = to_positives.nan_to_num(neginf=0.0)
        positive_mean = (
            _weigh(finite, pairs.positive_weights).sum(1, keepdim=True) * inv_num_positives
        )
    to_positives.sub_(nearest_positive).exp_()  # the slopes are multiples of these
    positive_sum = _sum_or_one(_weigh(to_positives, pairs.positive_weights), is_anchor)

    has_negative = pairs.num_negatives > 0
    torch.where(pairs.not_negative, excluded, similarities, out=to_negatives)
    nearest_negative = _largest(to_negatives)
    to_negatives.sub_(nearest_negative)
    negative_exp = torch.mul(to_negatives, 1.0 + beta, out=similarities).exp_()
    negative_sum = _sum_or_one(_weigh(negative_exp, pairs.negative_weights), has_negative)
    weight_exp = to_negatives.mul_(beta).exp_()
    if beta < torch.finfo(weight_exp.dtype).tiny:
        # A subnormal beta may be flushed to 0; then 0 * -inf is NaN where there is no negative.
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
        slopes.addcmul_(pairs.agreement, inv_num_positives * anchor_weight, value=-1)
    slopes.addcmul_(negative_exp, (1.0 + beta) * share_of_negatives / negative_sum)
    slopes.addcmul_(weight_exp, -beta * share_of_negatives / weight_sum)
    return losses.masked_fill_(~is_anchor, 0.0).mul_(anchor_weight)


def _weigh(exponentials: Tensor, weights: Tensor | None) -> Tensor:
    """Multiply by the weights in place; None stands for weights of 1."""
    return exponentials if weights is None else exponentials.mul_(weights)


def _largest(masked: Tensor) -> Tensor:
    """Return the largest entry of each row; 0 where all are -inf, which cannot be subtracted."""
    largest = masked.amax(1, keepdim=True)
    return largest.masked_fill_(largest == -math.inf, 0.0)


def _sum_or_one(exponentials: Tensor, has_any: Tensor) -> Tensor:
    """Sum each row; 1 where there is nothing to sum, so that dividing and logarithms are safe."""
    return exponentials.sum(1, keepdim=True).masked_fill_(~has_any, 1.0)
