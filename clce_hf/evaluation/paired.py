"""Differences of paired runs: their mean, interval and wins."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PairedDifference:
    """How much larger one of two quantities is, over pairs.

    Attributes:
        mean: of the differences.
        interval: half the width of the 95 % confidence interval of the mean, by Student's t; NaN
            for a single pair.
        wins: pairs in which the first was larger.
        pairs: how many there are.
    """

    mean: float
    interval: float
    wins: int
    pairs: int


def paired_difference(first: Sequence[float], second: Sequence[float]) -> PairedDifference:
    """Compare quantities that were measured in pairs, such as by seed.

    Raises:
        ValueError: unless both have the same number of values, one at least.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    wins = sum(difference > 0 for difference in differences)
    interval = half_width(differences)
    return PairedDifference(statistics.mean(differences), interval, wins, len(differences))


def half_width(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean, by Student's t."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return math.nan
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
