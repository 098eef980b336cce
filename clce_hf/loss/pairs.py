"""To what degree two samples share a class: wholly or not for ids, in part for probabilities.

The agreement of two samples is the scalar product of their labels, class ids taken as one-hot: 1
for what arXiv 2402.14551 calls a positive pair, 0 for a negative one. Agreement in between, as
mixup and CutMix make it, is our extension: a pair is positive by its agreement, and negative by the
rest.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from clce_hf.loss.targets import IGNORE_INDEX

_NEGLIGIBLE = 1e-6
"""Agreements closer to 0 or to 1 count as those: between near labels the rest is only rounding,
which weights that are scaled to a mean of 1 would blow up."""


class Pairs(NamedTuple):
    """The pairs of each anchor (a row) with every sample (a column), shape (rows, n).

    An anchor's pair with itself counts neither in the numbers nor in the weights, nor do pairs with
    samples without a label. Weights that are all 1, or masked away, are None.
    """

    is_positive: Tensor
    not_negative: Tensor
    agreement: Tensor
    positive_weights: Tensor | None
    negative_weights: Tensor | None
    num_positives: Tensor
    num_negatives: Tensor


def pairs_of(targets: Tensor, anchors: range, counted: Tensor, dtype: torch.dtype) -> Pairs:
    """Return the pairs of the anchors, whose targets are those rows, with all samples.

    Args:
        targets: integers, shape (n,), or class probabilities of the given dtype, shape
            (n, classes).
        anchors: rows of the targets; the step is 1.
        counted: what `is_labeled` returns for the targets, shape (n,).
        dtype: of the numbers of positives and negatives, shape (rows, 1).
    """
    own = slice(anchors.start, anchors.stop)
    if targets.is_floating_point():
        agreement = F.threshold(targets[own] @ targets.T, _NEGLIGIBLE, 0.0, inplace=True)
        disagreement = F.threshold(1.0 - agreement, _NEGLIGIBLE, 0.0, inplace=True)
        for weights in (agreement, disagreement):
            weights.diagonal(anchors.start).zero_()
        return Pairs(
            is_positive=agreement > 0,
            not_negative=disagreement == 0,
            agreement=agreement,
            positive_weights=agreement,
            negative_weights=disagreement,
            num_positives=agreement.sum(1, keepdim=True),
            num_negatives=disagreement.sum(1, keepdim=True),
        )
    same = targets[own, None] == targets
    same.diagonal(anchors.start).zero_()
    num_positives = same.sum(1, keepdim=True, dtype=dtype).mul_(counted[own, None])
    num_negatives = (counted.sum() - 1 - num_positives).clamp_min_(0)
    return Pairs(same, same, same, None, None, num_positives, num_negatives)


def count_positives(targets: Tensor, past: Tensor | None = None) -> Tensor:
    """Return how many other samples share each sample's label, or their total agreement.

    Args:
        targets: integers, shape (n,), or class probabilities in float32 at least, shape
            (n, classes).
        past: targets of more samples, of the same kind, to be counted for the others alone.

    Returns:
        Shape (n,), int64 for integers, 0 where the label is `IGNORE_INDEX`; floating point for
        probabilities: the expected number if each sample's class is drawn from them.
    """
    if targets.is_floating_point():
        of_others = targets.sum(0) - targets
        if past is not None:
            of_others += past.sum(0)
        return (targets * of_others).sum(1).clamp_min(0)
    # By the places in the sorted order: `unique` would wait for the device, whose number of classes
    # it has to know.
    ordered = targets.sort().values
    first = torch.searchsorted(ordered, targets)
    counts = torch.searchsorted(ordered, targets, right=True) - first - 1
    if past is not None:
        # Many more than the others, as a rule, so they are not sorted. A past class that is not
        # among the others' is at a place of another class, or at the one behind the last.
        places = torch.searchsorted(ordered, past)
        is_counted = F.pad(ordered, (0, 1), value=IGNORE_INDEX)[places] == past
        of_past = counts.new_zeros(len(ordered) + 1).index_add_(0, places, is_counted.long())
        counts += of_past[first]
    return counts.masked_fill(targets == IGNORE_INDEX, 0)


def count_anchors(num_positives: Tensor) -> Tensor:
    """Return how many samples have a positive; a fraction of a positive counts as that fraction.

    Otherwise an anchor with next to no agreement would be pulled as strongly as any other, to
    samples that it hardly agrees with, and a millionth of a label would change the loss.

    Args:
        num_positives: of each sample, shape (n,).
    """
    return num_positives.clamp_max(1).sum()
