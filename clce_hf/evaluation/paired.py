"""Differences of paired runs: their mean, interval and wins."""

import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PairedDifference:
    """How much larger the first of two quantities is, over pairs.

    Attributes:
        mean: of the differences.
        interval: half the width of the 95 % confidence interval of the mean, by Student's t; NaN
            for a single pair.
        wins: number of pairs in which the first is larger.
        pairs: number of pairs.
    """

    mean: float
    interval: float
    wins: int
    pairs: int


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Compare quantities that were measured in pairs, such as by seed.

    Raises:
        ValueError: unless both have the same number of values, at least one.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    wins = sum(difference > 0 for difference in differences)
    interval = half_width(differences)
    return PairedDifference(statistics.mean(differences), interval, wins, len(differences))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean, by Student's t.

    NaN for fewer than two values.
    """
    from scipy.stats import ttest_1samp  # takes a second to import

    if len(values) < 2:
        return math.nan
    with warnings.catch_warnings():
        # Seeds may come to the same value. The interval is then 0, as it should be.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        low, high = ttest_1samp(values, 0.0).confidence_interval(0.95)
    return float(high - low) / 2
