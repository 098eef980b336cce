"""All that is measured of a classifier: accuracy, calibration, few-shot, embedding quality."""

import torch
from torch import Tensor

from clce_hf.evaluation import embeddings as metrics
from clce_hf.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from clce_hf.evaluation.fewshot import few_shot_accuracy


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy and calibration, plain and with a temperature fitted on other images.

    `calibrated_...` divides the logits of each half of the images by the temperature that fits the
    other half best (two-fold cross-fitting), as a temperature fitted on validation images would.

    Args:
        logits: floating point, shape (n, classes), n at least 2.
        labels: integers, shape (n,).
    """
    calibrated = torch.empty_like(logits, dtype=torch.float64)
    # Drawn, since data sets often come sorted by class.
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
    """Quality of embeddings, shape (n, d), of labelled images, shape (n,); see `metrics.py`.

    The nearest neighbours that vote are 20, or as many as the smallest class has to give: more
    would be outvoted by other classes whatever the embeddings.
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
    shots: tuple[int, ...] = (1, 5),
    num_queries: int = 15,
    num_episodes: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy of few-shot episodes and half the width of its 95 % interval.

    By nearest centroid and by logistic regression, for each number of shots.

    Raises:
        ValueError: for too few classes or images.
    """
    found = {}
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
            found[key], found[f"{key}_interval"] = result.mean, result.interval
    return found
