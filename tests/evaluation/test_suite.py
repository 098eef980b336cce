import pytest
import torch

from clce_hf.evaluation.calibration import (
    calibrated_metrics,
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from clce_hf.evaluation.embeddings import knn_accuracy
from clce_hf.evaluation.record import Predictions
from clce_hf.evaluation.suite import embedding_metrics, measure


def test_each_half_is_calibrated_by_the_temperature_of_the_other():
    generator = torch.Generator().manual_seed(1)
    logits = 4 * torch.randn(30, 3, generator=generator)
    labels = torch.arange(3).repeat_interleave(10)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0)).tolist()
    halves = order[:15], order[15:]
    fitted = [fit_temperature(logits[half], labels[half]) for half in halves]
    assert abs(fitted[0] - fitted[1]) > 0.1 * fitted[0]
    scaled = torch.empty(30, 3, dtype=torch.float64)
    for half, temperature in zip(halves, reversed(fitted), strict=True):
        for row in half:
            scaled[row] = logits[row].double() / temperature
    measured = calibrated_metrics(logits, labels)
    expected = negative_log_likelihood(scaled, labels)
    assert measured["calibrated_negative_log_likelihood"] == pytest.approx(expected)
    assert measured["calibrated_calibration_error"] == calibration_error(scaled, labels)
    # Whatever the halves are, what was fitted on the images themselves looks better.
    together = logits.double() / fit_temperature(logits, labels)
    assert expected > negative_log_likelihood(together, labels)


def test_neighbors_of_small_classes_are_not_outvoted():
    # Six images of each of two classes that lie far apart: twenty neighbors would be all others.
    embeddings = torch.eye(2).repeat_interleave(6, dim=0) + 0.01 * torch.rand(12, 2)
    labels = torch.arange(2).repeat_interleave(6)
    assert embedding_metrics(embeddings, labels)["knn_accuracy"] == 1.0


def test_the_smaller_of_two_classes_is_not_outvoted():
    embeddings = torch.eye(2).repeat_interleave(torch.tensor([100, 6]), dim=0)
    labels = torch.arange(2).repeat_interleave(torch.tensor([100, 6]))
    assert embedding_metrics(embeddings, labels)["knn_accuracy"] == 1.0


def test_one_small_class_does_not_decide_how_many_neighbors_vote():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(31, 2, generator=generator)
    labels = torch.arange(3).repeat_interleave(10)
    labels = torch.cat([labels, torch.tensor([3])])  # alone in its class
    measured = embedding_metrics(embeddings, labels)["knn_accuracy"]
    assert measured == knn_accuracy(embeddings, labels, k=9)
    assert measured != knn_accuracy(embeddings, labels, k=1)
    marked = torch.where(labels == 0, -100, labels)  # which are no class
    rest = marked != -100
    assert embedding_metrics(embeddings, marked)["knn_accuracy"] == knn_accuracy(
        embeddings[rest], labels[rest], k=9
    )


@pytest.mark.parametrize("labels", [[], [-100] * 4, [-100, 1]])
def test_embeddings_without_labels_are_refused(labels):
    with pytest.raises(ValueError, match="n at least 2"):
        embedding_metrics(torch.ones(len(labels), 3), torch.tensor(labels, dtype=torch.long))


def test_what_cannot_be_measured_is_left_out_with_its_reason():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(6, 3, generator=generator)
    alone = Predictions(torch.eye(6), embeddings, torch.arange(6))  # no two images of a class
    measured = measure(alone, n_way=2, shots=(1, 2), num_queries=1, num_episodes=5)
    assert measured.metrics["accuracy"] == 1.0 and "silhouette" not in measured.metrics
    assert [part.what for part in measured.left_out] == ["embedding quality", *["few-shot"] * 2]
    assert "two classes, one of them with two images" in measured.left_out[0].why
    pairs = Predictions(torch.zeros(6, 0), embeddings, torch.arange(6) % 3)
    measured = measure(pairs, n_way=2, shots=(1, 2), num_queries=1, num_episodes=5)
    assert "accuracy" not in measured.metrics and "silhouette" in measured.metrics
    assert "2_way_1_shot_logistic_interval" in measured.metrics
    (reason,) = measured.left_out
    assert reason.why.startswith("2-way 2-shot episodes with 1 queries need 2 classes of 3 images")
