"""The quality of embeddings as metrics of Hugging Face's `evaluate` library.

They are made without the network and go into `evaluate.combine` as they are.
"""

from collections.abc import Callable
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from clce_hf.evaluation import embeddings as metrics
from clce_hf.evaluation.retrieval import retrieval_metrics

_Function = Callable[[Tensor, Tensor], dict[str, float]]


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
    "retrieval_metrics": retrieval_metrics,
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
    summary = _FUNCTIONS[name].__doc__ or getattr(metrics, name).__doc__
    members = {"_function": staticmethod(_FUNCTIONS[name]), "_summary": summary}
    return type(name, (EmbeddingMetric,), members)()
