"""What a model card says of a temperature that was folded into the classification layer."""

from dataclasses import dataclass
from typing import Any

from clce_hf.evaluation.table import Table

_ROWS = {
    "negative_log_likelihood": "negative log-likelihood",
    "calibration_error": "calibration error",
}


@dataclass(frozen=True)
class CardCalibration:
    """The last calibration of the model that a card is of, or the last that left it as it was.

    Attributes:
        values: what `CLCETrainer.calibrate` returned.
        not_of_the_model: metrics without their prefix `eval_` that were measured before it, and
            depend on probabilities.
    """

    values: dict[str, float]
    not_of_the_model: tuple[str, ...]

    @property
    def is_folded(self) -> bool:
        """Whether it changed the model."""
        return "rejected_temperature" not in self.values

    @property
    def table(self) -> str:
        """Before and after, in Markdown."""
        rows = [
            (label, *(f"{self.values[f'{name}_{when}']:.4f}" for when in ("before", "after")))
            for name, label in _ROWS.items()
        ]
        return Table("", ("", "before", "after"), rows).as_markdown()


def card_calibration(log_history: list[dict[str, Any]]) -> CardCalibration | None:
    """Return the last calibration since the last training; None where there was none.

    One that left the model as it was counts where no other did change it.

    Args:
        log_history: of `TrainerState`.
    """
    place = None
    for i, entry in enumerate(log_history):
        if "train_runtime" in entry:
            place = None
        elif "calibration_temperature" in entry and (
            place is None or "rejected_temperature" not in entry
        ):
            place = i
    if place is None:
        return None
    if "rejected_temperature" in log_history[place]:
        return CardCalibration(log_history[place], ())
    later = {name for entry in log_history[place:] for name in entry}
    before = {name for entry in log_history[:place] for name in entry}
    # The contrastive term is one of embeddings, which do not change.
    losses = [n for n in before if n.startswith("eval_") and n.endswith("loss")]
    changed = [n for n in losses if not n.endswith("contrastive_loss") and n not in later]
    return CardCalibration(
        log_history[place], tuple(sorted(n.removeprefix("eval_") for n in changed))
    )
