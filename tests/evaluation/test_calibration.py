import math

import pytest
import torch

from clce_hf.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)


def test_calibration_by_hand():
    # Confidence 0.75 and right, 0.75 and wrong, 0.95 and right.
    logits = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.05, 0.95]]).log()
    labels = torch.tensor([0, 1, 1])
    assert calibration_error(logits, labels) == pytest.approx((2 * 0.25 + 0.05) / 3)
    assert calibration_error(logits, labels, num_bins=1) == pytest.approx(abs(2 - 2.45) / 3)
    expected = -(math.log(0.75) + math.log(0.25) + math.log(0.95)) / 3
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, 5, generator=generator).double()
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    fitted = fit_temperature(temperature * logits, labels)
    assert fitted == pytest.approx(temperature, rel=0.05)
    scaled = temperature * logits / fitted
    assert calibration_error(scaled, labels) < 0.01
    best = negative_log_likelihood(scaled, labels)
    for factor in (0.98, 1.02):
        assert negative_log_likelihood(scaled * factor, labels) > best
