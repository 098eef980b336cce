"""How many images of each class a batch holds, as far as its labels say it."""

from torch import Tensor

from clce_hf.loss.targets import IGNORE_INDEX

_TOLERANCE = 1e-3
"""How far sums of shares may be from whole numbers, and shares from one another, by rounding."""


def images_per_class(labels: Tensor) -> Tensor | None:
    """Return how many images of each class there are in a batch, int64 of shape (classes,).

    Mixing images of a batch with one another by the same share, as torchvision's MixUp and CutMix
    do, keeps the sum of the shares of each class: the number before. What label smoothing gave to
    every class is taken off.

    Args:
        labels: integers, shape (n,) or (n, 1), where -100 is no class; or probabilities, shape
            (n, classes).

    Returns:
        On the CPU. None where labels do not say it, as if each image was mixed by its own share.
    """
    is_soft = labels.is_floating_point()
    if labels.dim() != 2 if is_soft else labels.numel() != len(labels):
        return None
    if is_soft:
        shares = labels.detach().cpu().double()
        least = shares.min(1, keepdim=True).values
        if least.max() - least.min() < _TOLERANCE:
            shares = shares - least
        sums = (shares / shares.sum(1, keepdim=True)).sum(0)
        counts = sums.round()
        return counts.long() if (sums - counts).abs().max() < _TOLERANCE else None
    return labels[labels != IGNORE_INDEX].unique(return_counts=True)[1].cpu()
