"""Accuracy as an `evaluate.Metric` that needs no network."""

from typing import Any

import datasets
import evaluate
import numpy as np
from transformers import EvalPrediction


class Accuracy(evaluate.Metric):
    """Share of predictions that equal their reference, as `evaluate.load("accuracy")` gives it."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions that equal their reference.",
            citation="",
            inputs_description="predictions and references: class ids, of the same length.",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return {"accuracy": float(np.mean(np.equal(predictions, references)))}


def compute_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy of logits (n, classes) against labels (n,), for Trainer."""
    # Trainer has gathered over the processes already, and each of them computes for itself.
    metric = Accuracy(keep_in_memory=True, num_process=1, process_id=0)
    metrics = metric.compute(
        predictions=np.asarray(prediction.predictions).argmax(-1), references=prediction.label_ids
    )
    return metrics or {}
