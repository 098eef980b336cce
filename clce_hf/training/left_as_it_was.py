"""What is said of a calibration that changed nothing, since it would have helped nothing."""

from collections.abc import Mapping


def why_left_as_it_was(values: Mapping[str, float]) -> str:
    """Say why a calibration left the model as it was; nothing where it did not.

    Args:
        values: what `calibrate` returned.
    """
    if "rejected_temperature" not in values:
        return ""
    return (
        "the model was left as it was, since a temperature makes held-out images no likelier: "
        f"{values['rejected_temperature']:.3f} has a negative log-likelihood of "
        f"{values['rejected_negative_log_likelihood']:.4f}, and the model as it is "
        f"{values['negative_log_likelihood_before']:.4f}."
    )
