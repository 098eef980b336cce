"""How well the probabilities of a classifier agree with how often it is right."""

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from torch import Tensor

TEMPERATURES = (0.01, 100.0)
"""Between which a temperature is searched."""

_MORE_IMAGES = 0.25
"""That a temperature is fitted to, of any class alike. With none, a few images that are told
without an error make every probability 1; a whole one makes models that err among similar classes
too unsure."""


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood, in nats.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).
    """
    return F.cross_entropy(logits.double(), labels).item()


@dataclass(frozen=True)
class Reliability:
    """Images by the confidence of their predicted class, in bins of equal width.

    Attributes:
        counts: images of each bin, float64, shape (bins,).
        confidence: mean confidence of each bin, the same; 0 where a bin is empty.
        accuracy: share of each bin's images that are told right, the same.
    """

    counts: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def error(self) -> float:
        """Mean distance between confidence and accuracy over the images, in [0, 1]."""
        gaps = (self.accuracy - self.confidence).abs()
        return (self.counts @ gaps / self.counts.sum()).item()


def reliability(logits: Tensor, labels: Tensor, num_bins: int = 15) -> Reliability:
    """Sort images into bins of equal width over the confidence of the predicted class.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).
        num_bins: number of bins.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    # A confidence on the edge of two bins belongs to the lower one, and 0 to none.
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    counts, sums, right = confidence.new_zeros(3, num_bins)
    counts.index_add_(0, bins, torch.ones_like(confidence))
    sums.index_add_(0, bins, confidence)
    right.index_add_(0, bins, (predicted == labels).double())
    return Reliability(counts, sums / counts.clamp_min(1), right / counts.clamp_min(1))


def calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    """Expected calibration error: mean distance between confidence and accuracy, in [0, 1].

    Guo et al., arXiv 1706.04599: bins of equal width over the confidence of the predicted class.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).
        num_bins: number of bins.
    """
    return reliability(logits, labels, num_bins).error


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature by which to divide logits for the least negative log-likelihood.

    Guo et al., arXiv 1706.04599. Fit it on validation data: the predicted classes stay the same.
    The likelihood is that of the images and of a quarter of an image more, spread over all of them
    and over all classes alike: else the best temperature for images that are told without an error
    would be 0, and every probability 1.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).

    Returns:
        The temperature, in [0.01, 100]; 1 for logits that tell no class from another.
    """
    logits = logits.double()
    told = logits.gather(1, labels[:, None]).sum() + _MORE_IMAGES * logits.mean()
    shares = 1 + _MORE_IMAGES / len(logits)

    def slope(log_temperature: float) -> float:
        """Return a number with the sign of the derivative; the sum is convex in 1 / T."""
        probabilities = (logits / math.exp(log_temperature)).softmax(1)
        return float(told - shares * (probabilities * logits).sum())

    low, high = map(math.log, TEMPERATURES)
    at_low, at_high = slope(low), slope(high)
    if at_low < 0 < at_high:
        return math.exp(cast(Any, brentq(slope, low, high, xtol=1e-10)))
    return 1.0 if at_low == at_high else TEMPERATURES[0] if at_low > 0 else TEMPERATURES[1]


def cross_fitted(logits: Tensor, labels: Tensor) -> Tensor:
    """Divide the logits of each half of the images by the temperature that fits the other half.

    What is measured of the result is what a temperature fitted on other images does: two-fold
    cross-fitting.

    Args:
        logits: floating point, shape (n, classes), n at least 2.
        labels: integers, shape (n,).

    Returns:
        float64, shape (n, classes).

    Raises:
        ValueError: for fewer than 2 images.
    """
    if len(labels) < 2:
        raise ValueError(
            "Temperatures are fitted on one half of the images and measured on the other: that "
            f"takes 2 images at least, got {len(labels)}."
        )
    calibrated = torch.empty_like(logits, dtype=torch.float64)
    # In random order, since data sets often come sorted by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, second = order.chunk(2)
    for rows, others in ((first, second), (second, first)):
        calibrated[rows] = logits[rows].double() / fit_temperature(logits[others], labels[others])
    return calibrated


def calibrated_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Calibration with a temperature fitted on other images.

    The logits of each half of the images are divided by the temperature that fits the other half
    best (two-fold cross-fitting), as a temperature fitted on validation images would.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).

    Raises:
        ValueError: for fewer than 2 images.
    """
    calibrated = cross_fitted(logits, labels)
    return {
        "calibrated_negative_log_likelihood": negative_log_likelihood(calibrated, labels),
        "calibrated_calibration_error": calibration_error(calibrated, labels),
    }
