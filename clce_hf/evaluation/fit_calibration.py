"""Fit a temperature, and reject one that would make other images no likelier."""

from torch import Tensor

from clce_hf.evaluation.calibration import (
    TEMPERATURES,
    calibration_error,
    cross_fitted,
    fit_temperature,
    negative_log_likelihood,
)


def fit_calibration(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Fit a temperature, and measure what one that was fitted on other images changes.

    Where it makes these no likelier, it is rejected: the temperature is 1, and what comes after is
    what was before.

    Args:
        logits: floating point, shape (n, classes), n at least 2.
        labels: integers, shape (n,).

    Returns:
        `calibration_temperature`, `calibration_images`, `negative_log_likelihood_before` and
        `_after`, and `calibration_error_before` and `_after`. Those after are cross-fitted. Of a
        temperature that was rejected, `rejected_temperature` and, cross-fitted,
        `rejected_negative_log_likelihood`, too.

    Raises:
        ValueError: if there is no best temperature in [0.01, 100].
    """
    temperature = fit_temperature(logits, labels)
    if temperature in TEMPERATURES:
        raise ValueError(
            "calibrate() found no best temperature between {:g} and {:g}: the model tells the "
            "classes of these images no better than chance, or hardly at all. Check that it is "
            "trained, and that the labels are numbered as its classes are.".format(*TEMPERATURES)
        )
    calibrated = cross_fitted(logits, labels)
    before = negative_log_likelihood(logits, labels)
    likelihood = negative_log_likelihood(calibrated, labels)
    is_better = likelihood < before
    rejected = {
        "rejected_temperature": temperature,
        "rejected_negative_log_likelihood": likelihood,
    }
    return {
        "calibration_temperature": temperature if is_better else 1.0,
        "calibration_images": len(labels),
        "negative_log_likelihood_before": before,
        "negative_log_likelihood_after": likelihood if is_better else before,
        "calibration_error_before": calibration_error(logits, labels),
        "calibration_error_after": calibration_error(calibrated if is_better else logits, labels),
        **({} if is_better else rejected),
    }
