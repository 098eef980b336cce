import evaluate
import pytest
import torch

from clce_hf.evaluation import embeddings as metrics
from clce_hf.evaluation.hf_metrics import METRIC_NAMES, load_metric
from clce_hf.evaluation.retrieval import retrieval_metrics


def batch(n=60, dim=8, classes=4):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    return torch.randn(n, dim, generator=generator) + labels[:, None] * 0.3, labels


def test_every_metric_combines_and_needs_no_network(hub):
    embeddings, labels = batch()
    combined = evaluate.combine([load_metric(name) for name in METRIC_NAMES])
    values = combined.compute(predictions=embeddings.numpy(), references=labels.numpy())
    assert hub.requests == []
    expected = metrics.class_similarities(embeddings, labels)
    assert values["similarity_within"] == pytest.approx(expected["within"], abs=1e-6)
    assert values["similarity_between"] == pytest.approx(expected["between"], abs=1e-6)
    assert values["iso_score"] == pytest.approx(metrics.iso_score(embeddings), abs=1e-6)
    assert values["uniformity"] == pytest.approx(metrics.uniformity(embeddings), abs=1e-6)
    for name in ("alignment", "silhouette", "knn_accuracy"):
        measure = getattr(metrics, name)
        assert values[name] == pytest.approx(measure(embeddings, labels), abs=1e-6)
    retrieval = retrieval_metrics(embeddings, labels)
    assert {name: values[name] for name in retrieval} == pytest.approx(retrieval, abs=1e-6)


def test_every_metric_says_what_it_is():
    assert all(load_metric(name).description for name in METRIC_NAMES)
    assert "R-precision" in load_metric("retrieval_metrics").description


def test_a_metric_takes_batches():
    embeddings, labels = batch()
    metric = load_metric("silhouette")
    for rows in torch.arange(60).split(7):
        metric.add_batch(predictions=embeddings[rows].numpy(), references=labels[rows].numpy())
    expected = metrics.silhouette(embeddings, labels)
    assert metric.compute()["silhouette"] == pytest.approx(expected, abs=1e-6)


def test_another_metric_is_refused():
    with pytest.raises(ValueError, match=r"no metric 'bleu'; the metrics are iso_score"):
        load_metric("bleu")
