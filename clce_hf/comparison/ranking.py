"""The metrics that methods can be ranked by: their names, their units, and which way is better."""

from dataclasses import dataclass

from clce_hf.evaluation.suite import TOP_5


@dataclass(frozen=True)
class Ranking:
    """A metric of a run that tells which method is better.

    Attributes:
        metric: among those of a run.
        higher_is_better: which way.
        is_share: of images, shown in percent.
    """

    metric: str
    higher_is_better: bool = True
    is_share: bool = True

    @property
    def label(self) -> str:
        """The metric in words, with its unit."""
        words = self.metric.replace("negative_log", "negative log").replace("_", " ")
        words = words.replace("log likelihood", "log-likelihood").replace("f1", "F1")
        return f"{words}, %" if self.is_share else words

    def shown(self, value: float) -> float:
        """Return a value in the unit of the label."""
        return 100 * value if self.is_share else value

    @property
    def digits(self) -> int:
        """Decimals that are shown."""
        return 2 if self.is_share else 3


_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", TOP_5, "knn_accuracy")
_RETRIEVAL = ("recall_at_1", "recall_at_5", "r_precision", "map_at_r")
_LOWER = (
    *("negative_log_likelihood", "calibrated_negative_log_likelihood"),
    *("calibration_error", "calibrated_calibration_error"),
    *("alignment", "uniformity", "seconds_per_step"),
)

RANKINGS = {
    **{name: Ranking(name) for name in (*_SHARES, *_RETRIEVAL)},
    **{name: Ranking(name, higher_is_better=False, is_share=False) for name in _LOWER},
    "silhouette": Ranking("silhouette", is_share=False),
}
"""By metric."""

ACCURACY = RANKINGS["accuracy"]
