import math

import pytest
from scipy.stats import ttest_rel

from clce_hf.evaluation.paired import half_width, paired_difference


def test_a_paired_difference_is_that_of_scipy():
    first, second = [3.0, 4.5, 2.0, 5.0, 4.0], [2.0, 4.0, 2.5, 3.0, 4.0]
    difference = paired_difference(first, second)
    low, high = ttest_rel(first, second).confidence_interval(0.95)
    assert difference.mean - difference.interval == pytest.approx(low)
    assert difference.mean + difference.interval == pytest.approx(high)
    assert (difference.wins, difference.pairs) == (3, 5)
    assert math.isnan(paired_difference([1.0], [2.0]).interval)


@pytest.mark.parametrize("values", [[0.5, 0.5], [0.1, 0.1, 0.1], [0.9, 0.9 + 1e-15]])
def test_seeds_that_come_to_the_same_have_no_spread_and_no_warning(values):
    assert half_width(values) == pytest.approx(0.0, abs=1e-14)
    assert paired_difference(values, values).interval == 0.0
