"""Everything that is measured of a classifier: accuracy, calibration, episodes, embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from clce_hf.evaluation import embeddings as metrics
from clce_hf.evaluation.by_class import (
    ClassAccuracy,
    balanced_accuracy,
    macro_f1,
    top_k_accuracy,
)
from clce_hf.evaluation.calibration import (
    calibrated_metrics,
    calibration_error,
    negative_log_likelihood,
)
from clce_hf.evaluation.fewshot import few_shot_accuracy
from clce_hf.evaluation.record import Predictions
from clce_hf.evaluation.retrieval import retrieval_metrics
from clce_hf.loss.targets import is_labeled
from clce_hf.models.neighbors import votes_that_fit

TOP_5 = "top_5_accuracy"
"""Measured where there are more than five classes."""


@dataclass(frozen=True)
class LeftOut:
    """Something that was not measured, and the reason."""

    what: str
    why: str


@dataclass(frozen=True)
class Measurements:
    """What was measured of a classifier.

    Attributes:
        metrics: by name; shares are in [0, 1].
        left_out: what could not be measured.
        classes: accuracy of each class, where their names are known.
    """

    metrics: dict[str, float]
    left_out: tuple[LeftOut, ...] = ()
    classes: tuple[ClassAccuracy, ...] = ()


def measure(
    predictions: Predictions,
    *,
    n_way: int = 5,
    shots: Sequence[int] = (1, 5),
    num_queries: int = 15,
    num_episodes: int = 1000,
    seed: int = 0,
) -> Measurements:
    """Measure what these predictions allow; leave out, with the reason, what they do not.

    Args:
        predictions: of n images, n at least 1. Where the model does not know their classes,
            accuracy and calibration are not measured.
        n_way: classes in a few-shot episode.
        shots: numbers of images of each class that an episode learns from.
        num_queries: images of each class that an episode classifies.
        num_episodes: number of few-shot episodes.
        seed: decides the episodes.
    """
    embeddings, labels = predictions.embeddings, predictions.labels
    values: dict[str, float] = {}
    left_out = []
    if predictions.knows_classes:
        values.update(classification_metrics(predictions.logits, labels))
        try:
            values.update(calibrated_metrics(predictions.logits, labels))
        except ValueError as error:
            left_out.append(LeftOut("calibrated metrics", str(error)))
    try:
        values.update(embedding_metrics(embeddings, labels))
    except ValueError as error:
        left_out.append(LeftOut("embedding quality", str(error)))
    episodes = {"n_way": n_way, "num_queries": num_queries, "num_episodes": num_episodes}
    for k_shot in shots:
        try:
            values.update(
                few_shot_metrics(embeddings, labels, shots=(k_shot,), seed=seed, **episodes)
            )
        except ValueError as error:
            left_out.append(LeftOut("few-shot", str(error)))
    return Measurements(values, tuple(left_out))


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and calibration of the model as it is.

    Args:
        logits: floating point, shape (n, classes), n at least 1.
        labels: integers, shape (n,).
    """
    return {
        **accuracies(logits, labels),
        "negative_log_likelihood": negative_log_likelihood(logits, labels),
        "calibration_error": calibration_error(logits, labels),
    }


def accuracies(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy over images, and what it is over classes; see `by_class.py`.

    Args:
        logits: floating point, shape (n, classes); of more than five, top-5 accuracy, too.
        labels: integers, shape (n,), n at least 1.
    """
    predicted = logits.argmax(1)
    values = {
        "accuracy": (predicted == labels).double().mean().item(),
        "balanced_accuracy": balanced_accuracy(predicted, labels),
        "macro_f1": macro_f1(predicted, labels),
    }
    if logits.shape[1] > 5:
        values[TOP_5] = top_k_accuracy(logits, labels, 5)
    return values


def embedding_metrics(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """Quality of embeddings; see `embeddings.py` and `retrieval.py`.

    20 nearest neighbors vote, or as many as over half of the classes can provide; an image does not
    vote for itself. `KNNCallback` has the same rule.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,).

    Raises:
        ValueError: for too few classes or images.
    """
    similarities = metrics.class_similarities(embeddings, labels)
    k = votes_that_fit(20, labels[is_labeled(labels)].unique(return_counts=True)[1] - 1)
    return {
        "knn_accuracy": metrics.knn_accuracy(embeddings, labels, k=k),
        "silhouette": metrics.silhouette(embeddings, labels),
        "similarity_within": similarities["within"],
        "similarity_between": similarities["between"],
        "alignment": metrics.alignment(embeddings, labels),
        "uniformity": metrics.uniformity(embeddings),
        "iso_score": metrics.iso_score(embeddings),
        **retrieval_metrics(embeddings, labels),
    }


def few_shot_metrics(
    embeddings: Tensor,
    labels: Tensor,
    *,
    n_way: int = 5,
    shots: Sequence[int] = (1, 5),
    num_queries: int = 15,
    num_episodes: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of few-shot episodes and half the width of its 95 % interval.

    By nearest centroid and by logistic regression, for each number of shots.

    Args:
        embeddings: floating point, shape (m, d).
        labels: integers, shape (m,).
        n_way: classes in an episode.
        shots: numbers of images of each class that an episode learns from.
        num_queries: images of each class that an episode classifies.
        num_episodes: number of episodes.
        seed: decides the episodes.

    Raises:
        ValueError: for too few classes or images.
    """
    values = {}
    for k_shot in shots:
        for name, classifier in (("centroid", "cosine"), ("logistic", "logistic")):
            result = few_shot_accuracy(
                embeddings,
                labels,
                n_way=n_way,
                k_shot=k_shot,
                num_queries=num_queries,
                num_episodes=num_episodes,
                classifier=classifier,
                seed=seed,
            )
            key = f"{n_way}_way_{k_shot}_shot_{name}"
            values[key], values[f"{key}_interval"] = result.mean, result.interval
    return values
