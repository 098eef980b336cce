"""Everything that is measured of a classifier: accuracy, calibration, episodes, embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clce_hf.evaluation import embeddings as metrics
from clce_hf.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from clce_hf.evaluation.fewshot import few_shot_accuracy
from clce_hf.evaluation.record import Predictions


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
    """

    metrics: dict[str, float]
    left_out: tuple[LeftOut, ...] = ()


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
        predictions: of n images, n at least 2. Where the model does not know their classes,
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
    """Accuracy and calibration, plain and with a temperature fitted on other images.

    `calibrated_...` divides the logits of each half of the images by the temperature that fits the
    other half best (two-fold cross-fitting), as a temperature fitted on validation images would.

    Args:
        logits: floating point, shape (n, classes), n at least 2.
        labels: integers, shape (n,).
    """
    calibrated = torch.empty_like(logits, dtype=torch.float64)
    # In random order, since data sets often come sorted by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, second = order.chunk(2)
    for rows, others in ((first, second), (second, first)):
        calibrated[rows] = logits[rows].double() / fit_temperature(logits[others], labels[others])
    return {
        "accuracy": (logits.argmax(1) == labels).double().mean().item(),
        "negative_log_likelihood": negative_log_likelihood(logits, labels),
        "calibration_error": calibration_error(logits, labels),
        "calibrated_negative_log_likelihood": negative_log_likelihood(calibrated, labels),
        "calibrated_calibration_error": calibration_error(calibrated, labels),
    }


def embedding_metrics(embeddings: Tensor, labels: Tensor) -> dict[str, float]:
    """Quality of embeddings; see `embeddings.py`.

    20 nearest neighbors vote, or as many as the smallest class can provide: more would be outvoted
    by other classes whatever the embeddings.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,).

    Raises:
        ValueError: for too few classes or images.
    """
    smallest = int(labels.unique(return_counts=True)[1].min())
    similarities = metrics.class_similarities(embeddings, labels)
    return {
        "knn_accuracy": metrics.knn_accuracy(embeddings, labels, k=min(20, max(1, smallest - 1))),
        "silhouette": metrics.silhouette(embeddings, labels),
        "similarity_within": similarities["within"],
        "similarity_between": similarities["between"],
        "alignment": metrics.alignment(embeddings, labels),
        "uniformity": metrics.uniformity(embeddings),
        "iso_score": metrics.iso_score(embeddings),
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
