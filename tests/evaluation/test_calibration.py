import math

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from clce_hf.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
)
from clce_hf.evaluation.fit_calibration import fit_calibration


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


def test_bins_are_those_of_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 4, generator=generator)
    labels = torch.randint(0, 4, (300,), generator=generator)
    bins = reliability(logits, labels, num_bins=10)
    found = [[] for _ in range(10)]
    for row, label in zip(logits.double().softmax(1), labels, strict=True):
        confidence = float(row.max())
        found[math.ceil(10 * confidence) - 1].append((confidence, int(row.argmax()) == int(label)))
    error = 0.0
    for i, images in enumerate(found):
        assert bins.counts[i] == len(images)
        if images:
            sure, right = (sum(values) / len(images) for values in zip(*images, strict=True))
            assert (bins.confidence[i], bins.accuracy[i]) == pytest.approx((sure, right))
            error += len(images) / 300 * abs(sure - right)
    assert bins.error == calibration_error(logits, labels, 10) == pytest.approx(error)


@pytest.mark.parametrize("n", [8, 120])
def test_the_temperature_is_the_best_for_a_quarter_of_an_image_more(n):
    generator = torch.Generator().manual_seed(n)
    logits = 6 * torch.randn(n, 3, generator=generator).double()
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    one_hot = F.one_hot(labels, 3) + 0.25 / n / 3

    def loss(temperature):
        return -float((one_hot * (logits / temperature).log_softmax(1)).sum())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, labels) == pytest.approx(best.x, rel=1e-5)


def test_images_told_without_an_error_do_not_make_probabilities_certain():
    logits = 3 * torch.eye(4)[torch.arange(40) % 4]
    labels = torch.arange(40) % 4
    sure = (logits / fit_temperature(logits, labels)).softmax(1).amax(1)
    assert (sure > 0.97).all() and (sure < 0.999).all()


def test_logits_that_tell_nothing_keep_their_temperature():
    assert fit_temperature(torch.full((8, 3), 0.7), torch.arange(8) % 3) == 1.0


def test_worse_than_chance_has_no_best_temperature():
    logits = 3 * torch.eye(4)[torch.arange(40) % 4]
    assert fit_temperature(logits, (torch.arange(40) + 1) % 4) == 100.0
    with pytest.raises(ValueError, match="no better than chance"):
        fit_calibration(logits, (torch.arange(40) + 1) % 4)


def test_a_temperature_that_makes_other_images_no_likelier_is_rejected():
    generator = torch.Generator().manual_seed(0)
    logits = 0.5 * torch.randn(300, 100, generator=generator)
    labels = logits.div(3).softmax(1).multinomial(1, generator=generator)[:, 0]  # next to chance
    values = fit_calibration(logits / 20, labels)
    assert 0.01 < values["rejected_temperature"] == fit_temperature(logits / 20, labels) < 0.5
    before = log_loss(labels, (logits / 20).double().softmax(1).numpy(), labels=range(100))
    assert values["rejected_negative_log_likelihood"] > before + 0.001
    assert values["calibration_temperature"] == 1.0
    for when in ("before", "after"):
        assert values[f"negative_log_likelihood_{when}"] == pytest.approx(before)
        assert values[f"calibration_error_{when}"] == calibration_error(logits / 20, labels)


def test_what_is_said_of_a_calibration_holds_for_other_images():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 5, generator=generator).double()
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    values = fit_calibration(3 * logits[:2000], labels[:2000])
    others = 3 * logits[2000:], labels[2000:]
    calibrated = others[0] / values["calibration_temperature"]
    expected = log_loss(others[1], calibrated.softmax(1).numpy())
    assert values["negative_log_likelihood_after"] == pytest.approx(expected, abs=0.05)
    assert values["negative_log_likelihood_before"] > expected + 0.3
    assert values["calibration_error_after"] < 0.04 < values["calibration_error_before"]
    assert not any(name.startswith("rejected") for name in values)
