"""Accuracy and the quality of embeddings as metrics of Hugging Face's `evaluate` library.

They are made without the network and go into `evaluate.combine` as they are.
"""

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from clce_hf.evaluation import embeddings as metrics

_Function = Callable[[Tensor, Tensor], dict[str, float]]


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


class EmbeddingMetric(evaluate.Metric):
    """A metric whose predictions are embeddings, and whose references are labels."""

    _function: _Function
    _summary: str

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": datasets.Value("int64"),
        }
        return evaluate.MetricInfo(
            description=self._summary,
            citation="",
            inputs_description="predictions: embeddings (n, d); references: labels (n,).",
            features=datasets.Features(features),
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        embeddings = torch.from_numpy(np.asarray(predictions, dtype=np.float32))
        return type(self)._function(embeddings, torch.as_tensor(references))


_FUNCTIONS: dict[str, _Function] = {
    "iso_score": lambda e, y: {"iso_score": metrics.iso_score(e)},
    "alignment": lambda e, y: {"alignment": metrics.alignment(e, y)},
    "uniformity": lambda e, y: {"uniformity": metrics.uniformity(e)},
    "class_similarities": lambda e, y: {
        f"similarity_{name}": value for name, value in metrics.class_similarities(e, y).items()
    },
    "silhouette": lambda e, y: {"silhouette": metrics.silhouette(e, y)},
    "knn_accuracy": lambda e, y: {"knn_accuracy": metrics.knn_accuracy(e, y)},
}

METRIC_NAMES = tuple(_FUNCTIONS)
"""Names that `load_metric` takes."""


def load_metric(name: str) -> EmbeddingMetric:
    """Return one of `METRIC_NAMES` as an `evaluate.Metric`.

    Raises:
        ValueError: for another name.
    """
    if name not in _FUNCTIONS:
        raise ValueError(f"There is no metric {name!r}; the metrics are {', '.join(METRIC_NAMES)}.")
    summary = getattr(metrics, name).__doc__
    members = {"_function": staticmethod(_FUNCTIONS[name]), "_summary": summary}
    return type(name, (EmbeddingMetric,), members)()


def compute_accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy of logits (n, classes) against labels (n,), for `Trainer`."""
    # Trainer has gathered over the processes already, and each of them computes for itself.
    metric = Accuracy(keep_in_memory=True, num_process=1, process_id=0)
    values = metric.compute(
        predictions=np.asarray(prediction.predictions).argmax(-1), references=prediction.label_ids
    )
    return values or {}
