"""How well the probabilities of a classifier agree with how often it is right."""

import torch
import torch.nn.functional as F
from torch import Tensor


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood, in nats.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).
    """
    return F.cross_entropy(logits.double(), labels).item()


def calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Expected calibration error: mean distance between confidence and accuracy, in [0, 1].

    Guo et al., arXiv 1706.04599: bins of equal width over the confidence of the predicted class.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).
        num_bins: number of bins.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    # A confidence on the edge of two bins belongs to the lower one, and 0 to none.
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    gaps = confidence.new_zeros(num_bins)
    gaps.index_add_(0, bins, (predicted == labels).double() - confidence)
    return (gaps.abs().sum() / len(labels)).item()


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature by which to divide logits for the least negative log-likelihood.

    Guo et al., arXiv 1706.04599. Fit it on validation data: the predicted classes stay the same.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).

    Returns:
        The temperature, in [0.01, 100].
    """
    logits = logits.double()
    low, high = -4.605, 4.605
    # The likelihood is convex in 1 / T, so its derivative has one sign on each side of the best.
    for _ in range(60):
        middle = torch.tensor((low + high) / 2, dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            loss = F.cross_entropy(logits / middle.exp(), labels)
            (slope,) = torch.autograd.grad(loss, middle)
        low, high = (low, middle.item()) if slope > 0 else (middle.item(), high)
    return float(torch.tensor((low + high) / 2).exp())
