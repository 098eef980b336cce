"""Whether what a model returned are numbers, and whose fault it is where they are not."""

from torch import nn

from clce_hf.errors import abbreviate
from clce_hf.evaluation.record import Predictions
from clce_hf.models.broken_weights import broken_weights


def check_finite(predictions: Predictions, model: nn.Module) -> None:
    """Raise `ValueError` if embeddings or logits are not finite: of all images, or of some.

    Those of a model that diverged are NaN for each image, and class 0 would be predicted.

    Args:
        predictions: of the model.
        model: whose weights are looked at where something is not finite.
    """
    is_right = predictions.embeddings.isfinite().all(1) & predictions.logits.isfinite().all(1)
    rows = [str(row) for row in (~is_right).nonzero()[:, 0].tolist()]
    if not rows:
        return
    what, n = "embeddings or logits that are not finite", len(is_right)
    weights = broken_weights(model)
    if weights or len(rows) == n:
        why, or_else = f", and so are its weights {abbreviate(weights)}", ""
        if not weights:
            why, or_else = "", ", or all images hold NaN, infinity or huge values"
        raise ValueError(
            f"the model gives {what} for {len(rows)} of {n} images{why}: its training diverged"
            f"{or_else}. Take a checkpoint from before that, or train again with a lower "
            "learning_rate."
        )
    raise ValueError(
        f"the model gives {what} for {len(rows)} of {n} images alone, rows {abbreviate(rows)}: "
        "look for NaN, infinity or huge values in these images, and mend them or leave them out."
    )
