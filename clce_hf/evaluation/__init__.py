"""What is measured of a trained classifier: accuracy, calibration, episodes, embeddings.

Metrics are functions of tensors; `infer` makes these tensors, `Run` keeps them in a folder and
`Table` shows numbers as text. Pictures live in `reports`, trainings of several methods in
`comparison`. `hf_metrics` is imported by its own name, since Hugging Face's `evaluate`, which it
builds on, takes long to import.
"""

from clce_hf.evaluation.by_class import (
    ClassAccuracy,
    accuracy_by_class,
    balanced_accuracy,
    macro_f1,
    top_k_accuracy,
)
from clce_hf.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from clce_hf.evaluation.embeddings import (
    alignment,
    class_similarities,
    iso_score,
    knn_accuracy,
    silhouette,
    uniformity,
)
from clce_hf.evaluation.fewshot import FewShotResult, few_shot_accuracy
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.paired import PairedDifference, paired_difference
from clce_hf.evaluation.record import Predictions, Run
from clce_hf.evaluation.retrieval import nearest_others, retrieval_metrics
from clce_hf.evaluation.suite import LeftOut, Measurements, measure
from clce_hf.evaluation.table import Table

__all__ = [
    "ClassAccuracy",
    "FewShotResult",
    "LeftOut",
    "Measurements",
    "PairedDifference",
    "Predictions",
    "Run",
    "Table",
    "accuracy_by_class",
    "alignment",
    "balanced_accuracy",
    "calibration_error",
    "class_similarities",
    "few_shot_accuracy",
    "fit_temperature",
    "infer",
    "iso_score",
    "knn_accuracy",
    "macro_f1",
    "measure",
    "nearest_others",
    "negative_log_likelihood",
    "paired_difference",
    "retrieval_metrics",
    "silhouette",
    "top_k_accuracy",
    "uniformity",
]
