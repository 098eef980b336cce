"""Labels in every form that the loss takes, checked and normalized once.

A label is a class id or, as mixup and CutMix make it, a row of class probabilities.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100
"""Label of samples that take part in neither term, as in `torch.nn.functional.cross_entropy`."""

_TOLERANCE = 1e-2
"""How far the probabilities of a sample may sum from 1: rounding to bfloat16 needs half of it."""


def class_targets(labels: Tensor, rows: Tensor, num_classes: int | None = None) -> Tensor:
    """Return labels as the loss computes with them: int64 class ids or class probabilities.

    Args:
        labels: integers, shape (n,) or (n, 1); or probabilities, floating point, shape
            (n, classes).
        rows: the logits or embeddings that are labeled, shape (n, ...).
        num_classes: how many probabilities a sample must have; None for any number.

    Returns:
        int64, shape (n,); or probabilities that sum to 1, of the dtype that the loss has for the
        rows (float32 at least), shape (n, classes).

    Raises:
        ValueError: if there is not one label for each row, or if floating-point labels are not
            probabilities: numbers that are not negative and sum to 1 within 1 %.
    """
    is_soft = labels.is_floating_point()
    fits = labels.shape[:1] == rows.shape[:1] and labels.dtype != torch.bool
    if is_soft:
        fits = fits and labels.dim() == 2 and num_classes in (None, labels.shape[1])
    else:
        fits = fits and labels.numel() == len(rows)
    if not fits:
        raise ValueError(
            "labels must be one integer class id per image, or its class probabilities, got "
            f"{labels.dtype} of shape {tuple(labels.shape)} for {len(rows)} images"
            f"{'' if num_classes is None else f' of {num_classes} classes'}: CLCE contrasts "
            "classes, so multi-label and regression targets do not fit it."
        )
    if not is_soft:
        return labels.view(-1).long()
    labels = labels.to(torch.promote_types(rows.dtype, torch.float32))
    sums = labels.sum(1, keepdim=True)
    # One condition, since each waits for the device.
    if not ((labels >= 0).all() & ((sums - 1).abs() <= _TOLERANCE).all()):
        raise ValueError(
            "labels must be one integer class id per image, or its class probabilities, numbers "
            "that are not negative and sum to 1, but the smallest number is "
            f"{labels.min():.4g}, and sums lie between {sums.min():.4g} and {sums.max():.4g}: CLCE "
            "contrasts classes, so multi-label and regression targets do not fit it."
        )
    return labels / sums


def is_labeled(targets: Tensor) -> Tensor:
    """Return which samples take part, boolean of shape (n,): those whose class id is not -100."""
    if targets.dim() == 1:
        return targets != IGNORE_INDEX
    return targets.new_ones(len(targets), dtype=torch.bool)


def outside_range(targets: Tensor, num_classes: int) -> Tensor:
    """Return which samples have a class id that is neither in [0, num_classes) nor -100.

    Args:
        targets: class ids, shape (n,), or class probabilities, shape (n, classes), which no class
            is missing from.
        num_classes: of the model.

    Returns:
        Boolean, shape (n,).
    """
    if targets.dim() != 1:
        return targets.new_zeros(len(targets), dtype=torch.bool)
    return (targets != targets.clamp(0, num_classes - 1)) & is_labeled(targets)


def ignore_outside_range(targets: Tensor, num_classes: int) -> Tensor:
    """Return targets with class ids that are outside of the range set to -100.

    On a GPU, cross-entropy of such an id is a failed assertion in a kernel, which names nothing and
    leaves the process unusable.
    """
    if targets.dim() != 1:
        return targets
    return targets.masked_fill(outside_range(targets, num_classes), IGNORE_INDEX)


def class_probabilities(targets: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return class ids, shape (n,), as one-hot probabilities, shape (n, classes).

    Raises:
        ValueError: if a class id is -100, for which there are no probabilities.
    """
    if not is_labeled(targets).all():
        raise ValueError(
            "labels are class probabilities in some batches and -100 for some images of others, "
            "which cannot be contrasted with each other: set memory_size=0, or leave these images "
            "out."
        )
    return F.one_hot(targets, num_classes).to(dtype)


def one_number_per_sample(labels: Tensor) -> Tensor:
    """Return one number per sample, for code that counts samples by their labels.

    Args:
        labels: integers, shape (n,) or (n, 1), or probabilities, shape (n, classes), whose first
            column is returned.
    """
    return labels[:, 0] if labels.is_floating_point() and labels.dim() == 2 else labels
