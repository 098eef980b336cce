"""How far two samples are of one class: class ids agree or do not, class probabilities in part.

The agreement of two samples is the scalar product of their labels, class ids taken as one-hot: 1
for what arXiv 2402.14551 calls a positive pair, 0 for a negative one. Agreement in between, as
mixup and CutMix make it, is our extension: a pair is positive by its agreement, and negative by the
rest.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100
"""Label of samples that take part in neither term, as in `torch.nn.functional.cross_entropy`."""

_NEGLIGIBLE = 1e-6
"""Agreements closer to 0 or to 1 count as those: between near labels the rest is only rounding,
which weights that are scaled to a mean of 1 would blow up."""

_TOLERANCE = 1e-2
"""By how much the probabilities of a sample may miss 1 in all: bfloat16 needs half of it."""


class Pairs(NamedTuple):
    """The pairs of some anchors, one a row, with all samples, one a column, shape (rows, n).

    An anchor's pair with itself is left out of the numbers and the weights, as are those of samples
    without a label; weights that are all 1, or masked away, are None.
    """

    is_positive: Tensor
    is_no_negative: Tensor
    agreement: Tensor
    positive_weights: Tensor | None
    negative_weights: Tensor | None
    num_positives: Tensor
    num_negatives: Tensor


def pairs_of(labels: Tensor, anchors: range, counted: Tensor, dtype: torch.dtype) -> Pairs:
    """Return the pairs of the anchors, whose labels are those rows, with all samples.

    Args:
        labels: integers, shape (n,), or class probabilities of the given dtype, shape (n, classes).
        anchors: rows of the labels; the step is 1.
        counted: what `is_labelled` returns for the labels, shape (n,).
        dtype: of the numbers of positives and negatives, shape (rows, 1).
    """
    own = slice(anchors.start, anchors.stop)
    if labels.is_floating_point():
        agreement = F.threshold(labels[own] @ labels.T, _NEGLIGIBLE, 0.0, inplace=True)
        disagreement = F.threshold(1.0 - agreement, _NEGLIGIBLE, 0.0, inplace=True)
        for weights in (agreement, disagreement):
            weights.diagonal(anchors.start).zero_()
        return Pairs(
            is_positive=agreement > 0,
            is_no_negative=disagreement == 0,
            agreement=agreement,
            positive_weights=agreement,
            negative_weights=disagreement,
            num_positives=agreement.sum(1, keepdim=True),
            num_negatives=disagreement.sum(1, keepdim=True),
        )
    same = labels[own, None] == labels
    same.diagonal(anchors.start).zero_()
    num_positives = same.sum(1, keepdim=True, dtype=dtype).mul_(counted[own, None])
    num_negatives = (counted.sum() - 1 - num_positives).clamp_min_(0)
    return Pairs(same, same, same, None, None, num_positives, num_negatives)


def is_labelled(labels: Tensor) -> Tensor:
    """Return which samples take part, boolean of shape (n,): those whose class id is not -100."""
    if labels.dim() == 1:
        return labels != IGNORE_INDEX
    return labels.new_ones(len(labels), dtype=torch.bool)


def count_positives(labels: Tensor) -> Tensor:
    """Number of other samples that share each sample's label; their agreement in all.

    Args:
        labels: integers, shape (n,), or class probabilities in float32 at least, shape
            (n, classes).

    Returns:
        Shape (n,), int64 for integers, 0 where the label is `IGNORE_INDEX`; floating point for
        probabilities, the number that is expected if each sample's class is drawn from them.
    """
    if labels.is_floating_point():
        return (labels * (labels.sum(0) - labels)).sum(1).clamp_min(0)
    _, class_of, class_sizes = labels.unique(return_inverse=True, return_counts=True)
    return (class_sizes[class_of] - 1).masked_fill(labels == IGNORE_INDEX, 0)


def count_anchors(num_positives: Tensor) -> Tensor:
    """Number of samples that have a positive; one that has less than a whole one counts that much.

    Without this, an anchor with next to no agreement would be pulled to what it hardly agrees with
    as strongly as others to their own class, and adding a millionth of a label would change the
    loss.

    Args:
        num_positives: of each sample, shape (n,).
    """
    return num_positives.clamp_max(1).sum()


def class_probabilities(labels: Tensor, like: Tensor) -> Tensor:
    """Return soft labels, shape (n, classes), each row divided by its sum.

    They are of the dtype that the loss has for logits or embeddings `like` these: float32 at least.

    Raises:
        ValueError: unless each row is of numbers that are not negative and sum to 1 within 1 %.
    """
    labels = labels.to(torch.promote_types(like.dtype, torch.float32))
    sums = labels.sum(1, keepdim=True)
    if not ((labels >= 0).all() and ((sums - 1).abs() <= _TOLERANCE).all()):
        raise ValueError(
            "labels must be one integer class id an image, or its class probabilities, numbers "
            "that are not negative and sum to 1, but there are numbers from "
            f"{labels.min():.4g} on and sums from {sums.min():.4g} to {sums.max():.4g}: CLCE "
            "contrasts classes, so multi-label and regression targets do not fit it."
        )
    return labels / sums
