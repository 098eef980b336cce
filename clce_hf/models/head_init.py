"""The weights of a classification layer from the mean embedding of each class.

A new head is random, and lags behind embeddings that are good from the start. Its logits become
`s * w_c . (e - m)` here: m is the mean of all embeddings, w_c the direction from m to the mean of
class c, and the one free number s is what tells each image best by the means of the others.
"""

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

_TINY = 1e-6
"""Below this share of the size of an embedding, differences of embeddings are rounding."""

_MOST_LOGITS = 2**22
"""Logits that are scored for the scale: enough for one number, and a second of work."""

_SCALES = (1e-3, 1e4)
"""Between which the scale is searched, for embeddings at a distance of 1 from their mean."""


def class_mean_weights(
    embeddings: Tensor, targets: Tensor, num_classes: int, has_bias: bool = True
) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a linear layer that compares embeddings with class means.

    The scale minimizes the negative log-likelihood of the classes of the images, each compared with
    means that its own share is taken out of, as if one image more had been seen, of any class
    alike: without it, the best scale for classes that are told apart without an error would be
    infinite. An image whose class has no other image is not scored. Where none can be, the
    scale is that of embeddings at a mean distance of 1 from their mean, which says little.

    Args:
        embeddings: floating point, shape (n, d).
        targets: class ids, shape (n,), or class probabilities, shape (n, num_classes).
        num_classes: C, the number of rows.
        has_bias: whether the layer has one. Without it, the directions are taken orthogonal to the
            mean of all embeddings, which then needs no subtraction, and the bias is 0.

    Returns:
        float32, shapes (C, d) and (C,), finite. A class without an image has a row of zeros and
        a bias of 0: the logit of an embedding that is neither near to nor far from it.
    """
    embeddings = embeddings.detach().to("cpu", torch.float64)
    weight = embeddings.new_zeros(num_classes, embeddings.shape[1])
    mean = embeddings.mean(0) if len(embeddings) else embeddings.new_zeros(weight.shape[1])
    centered = embeddings - mean
    if not has_bias:
        direction = F.normalize(mean, dim=0)
        centered -= torch.outer(centered @ direction, direction)
    spread = centered.square().sum(1).mean().sqrt()
    if spread > _TINY * mean.norm():
        targets = targets.detach().cpu()
        weight = _directions(centered / spread, targets, num_classes) / spread
    bias = -weight @ mean if has_bias else weight.new_zeros(num_classes)
    return weight.float(), bias.float()


def _directions(embeddings: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Return the scaled rows (C, d) for centered embeddings (n, d) of mean square 1."""
    if targets.is_floating_point():
        sums = targets.to(embeddings.dtype).T @ embeddings
        sizes = targets.to(embeddings.dtype).sum(0)
    else:
        sums = embeddings.new_zeros(num_classes, embeddings.shape[1])
        sums.index_add_(0, targets, embeddings)
        sizes = targets.bincount(minlength=num_classes).to(embeddings.dtype)
    scored = slice(None, None, math.ceil(len(embeddings) * num_classes / _MOST_LOGITS))
    embeddings, targets = embeddings[scored], targets[scored]
    is_soft = targets.is_floating_point()
    shares = targets if is_soft else F.one_hot(targets, num_classes)
    return _scale(embeddings, shares.to(embeddings.dtype), sums, sizes) * _normalized(sums)


def _normalized(sums: Tensor) -> Tensor:
    return F.normalize(sums, eps=_TINY)


def _scale(embeddings: Tensor, shares: Tensor, sums: Tensor, sizes: Tensor) -> float:
    """Return the most likely scale of the images' logits.

    Args:
        embeddings: centered, shape (n, d).
        shares: of each image in each class, shape (n, C).
        sums: of the embeddings of each class by their shares, shape (C, d).
        sizes: sums of the shares, shape (C,).
    """
    products = embeddings @ sums.T
    squares = embeddings.square().sum(1, keepdim=True)
    # ||S_c - p_ic e_i||^2, of the sum of a class without the image's own share.
    norms = sums.square().sum(1) - 2 * shares * products + shares.square() * squares
    logits = (products - shares * squares) / norms.clamp_min(_TINY**2).sqrt()
    has_others = sizes - shares > _TINY
    logits = logits * has_others
    told = shares * has_others
    if not told.any():
        return 1.0
    # One image more, of any class alike.
    told = told + told.sum(1, keepdim=True) / told.sum() / shares.shape[1]

    def negative_log_likelihood(log_scale: float) -> float:
        return -float((told * (math.exp(log_scale) * logits).log_softmax(1)).sum())

    bounds = tuple(map(math.log, _SCALES))
    found = cast(Any, minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded"))
    return math.exp(found.x)
