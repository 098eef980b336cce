"""What is measured of a trained classifier: accuracy, calibration, episodes, embeddings.

Metrics are functions of tensors; `infer` makes these tensors, `Run` keeps them in a folder and
`Table` shows numbers as text. Pictures live in `reports`, trainings of several methods in
`comparison`.
"""

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
from clce_hf.evaluation.hf_metrics import METRIC_NAMES, compute_accuracy, load_metric
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.paired import PairedDifference, paired_difference
from clce_hf.evaluation.record import Predictions, Run
from clce_hf.evaluation.suite import LeftOut, Measurements, measure
from clce_hf.evaluation.table import Table

__all__ = [
    "METRIC_NAMES",
    "FewShotResult",
    "LeftOut",
    "Measurements",
    "PairedDifference",
    "Predictions",
    "Run",
    "Table",
    "alignment",
    "calibration_error",
    "class_similarities",
    "compute_accuracy",
    "few_shot_accuracy",
    "fit_temperature",
    "infer",
    "iso_score",
    "knn_accuracy",
    "load_metric",
    "measure",
    "negative_log_likelihood",
    "paired_difference",
    "silhouette",
    "uniformity",
]
