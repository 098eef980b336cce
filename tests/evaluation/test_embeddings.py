import math
import subprocess
import sys

import evaluate
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from IsoScore import IsoScore
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier

from clce_hf.evaluation import embeddings as metrics
from clce_hf.evaluation.calibration import (
    calibration_error,
    fit_temperature,
    negative_log_likelihood,
)
from clce_hf.evaluation.hf_metrics import METRIC_NAMES, load_metric


def batch(n=60, dim=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    embeddings = torch.randn(n, dim, generator=generator) + labels[:, None] * 0.3
    return embeddings * torch.rand(n, 1, generator=generator), labels


def pairs(embeddings, labels):
    points = F.normalize(embeddings.double(), dim=1)
    for i in range(len(points)):
        for j in range(i):
            yield points[i], points[j], bool(labels[i] == labels[j])


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize(
    "scales", [torch.ones(8), torch.arange(1.0, 9.0), 10.0 ** -torch.arange(8)]
)
def test_iso_score_is_that_of_its_authors(scales):
    points = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)).double() * scales
    assert metrics.iso_score(points) == pytest.approx(IsoScore.IsoScore(points).item(), abs=1e-6)


def test_iso_score_knows_a_ball_from_a_line():
    points = torch.randn(20_000, 6)
    assert metrics.iso_score(points) > 0.99
    assert metrics.iso_score(points * torch.tensor([1.0, 0, 0, 0, 0, 0])) == pytest.approx(0.0)


@given(st.integers(0, 10**6), st.integers(2, 6), st.sampled_from([7, 2**22]))
@settings(max_examples=30, deadline=None)
def test_pairs_are_those_of_a_plain_loop(seed, classes, block):
    embeddings, labels = batch(30, 5, classes, seed)
    before, metrics._BLOCK_ELEMENTS = metrics._BLOCK_ELEMENTS, block
    try:
        found = metrics.class_similarities(embeddings, labels)
        aligned, uniform = metrics.alignment(embeddings, labels), metrics.uniformity(embeddings)
    finally:
        metrics._BLOCK_ELEMENTS = before
    every = list(pairs(embeddings, labels))
    for name, is_same in (("within", True), ("between", False)):
        cosines = [(a @ b).item() for a, b, same in every if same is is_same]
        assert found[name] == pytest.approx(np.mean(cosines), abs=1e-6)
    squared = [(a - b).square().sum().item() for a, b, same in every if same]
    assert aligned == pytest.approx(np.mean(squared), abs=1e-6)
    potentials = [math.exp(-2 * (a - b).square().sum().item()) for a, b, _ in every]
    assert uniform == pytest.approx(math.log(np.mean(potentials)), abs=1e-5)


@pytest.mark.parametrize("block", [7, 2**22])
@pytest.mark.parametrize("seed", range(4))
def test_neighbours_and_silhouettes_are_those_of_scikit_learn(monkeypatch, seed, block):
    embeddings, labels = batch(seed=seed)
    labels[0] = 9  # a class of one image
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", block)
    ours = metrics.silhouette(embeddings, labels)
    assert ours == pytest.approx(silhouette_score(embeddings, labels, metric="cosine"), abs=1e-5)
    hits = []
    for i in range(len(labels)):
        others = np.delete(np.arange(len(labels)), i)
        model = KNeighborsClassifier(5, metric="cosine").fit(embeddings[others], labels[others])
        hits.append(model.predict(embeddings[i : i + 1])[0] == labels[i].item())
    assert metrics.knn_accuracy(embeddings, labels, k=5) == np.mean(hits)


def test_rows_without_a_label_are_left_out():
    embeddings, labels = batch()
    marked = torch.where(labels == 3, -100, labels)
    keep = marked != -100
    for measure in (metrics.silhouette, metrics.knn_accuracy, metrics.alignment):
        assert measure(embeddings, marked) == measure(embeddings[keep], labels[keep])


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda e, y: metrics.iso_score(e[:1]), "n at least 2"),
        (lambda e, y: metrics.iso_score(e[:, :1]), "two dimensions"),
        (lambda e, y: metrics.iso_score(torch.ones(4, 3)), "all embeddings are equal"),
        (lambda e, y: metrics.uniformity(e[0]), r"shape \(n, d\)"),
        (lambda e, y: metrics.alignment(e[:3], torch.arange(3)), "two classes"),
        (lambda e, y: metrics.silhouette(e, torch.zeros_like(y)), "two classes"),
        (lambda e, y: metrics.knn_accuracy(e, y, k=60), r"k must lie in \[1, 59\], got 60"),
        (lambda e, y: metrics.knn_accuracy(e, y[:-1]), r"labels must have shape \(60,\)"),
        (lambda e, y: load_metric("bleu"), "There is no metric 'bleu', but iso_score"),
    ],
)
def test_what_cannot_be_measured_says_why(measure, message):
    with pytest.raises(ValueError, match=message):
        measure(*batch())


# ---- as metrics of evaluate ----


def test_every_metric_combines_and_needs_no_network(hub):
    embeddings, labels = batch()
    combined = evaluate.combine([load_metric(name) for name in METRIC_NAMES])
    found = combined.compute(predictions=embeddings.numpy(), references=labels.numpy())
    assert hub.requests == []
    expected = metrics.class_similarities(embeddings, labels)
    assert found["similarity_within"] == pytest.approx(expected["within"], abs=1e-6)
    assert found["similarity_between"] == pytest.approx(expected["between"], abs=1e-6)
    assert found["iso_score"] == pytest.approx(metrics.iso_score(embeddings), abs=1e-6)
    assert found["uniformity"] == pytest.approx(metrics.uniformity(embeddings), abs=1e-6)
    for name in ("alignment", "silhouette", "knn_accuracy"):
        measure = getattr(metrics, name)
        assert found[name] == pytest.approx(measure(embeddings, labels), abs=1e-6)


def test_a_metric_takes_batches():
    embeddings, labels = batch()
    metric = load_metric("silhouette")
    for rows in torch.arange(60).split(7):
        metric.add_batch(predictions=embeddings[rows].numpy(), references=labels[rows].numpy())
    expected = metrics.silhouette(embeddings, labels)
    assert metric.compute()["silhouette"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", METRIC_NAMES)
def test_fifty_thousand_embeddings_fit_in_a_gigabyte(name):
    script = f"""
import resource, torch
from clce_hf.evaluation import embeddings as metrics
embeddings, labels = torch.randn(50_000, 768), torch.randint(100, (50_000,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arguments = (embeddings,) if {name!r} in ("iso_score", "uniformity") else (embeddings, labels)
metrics.{name}(*arguments)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # The embeddings themselves are part of the gigabyte.
    assert int(done.stdout) * 1024 < 2**30 - 50_000 * 768 * 4


# ---- calibration ----


def test_calibration_by_hand():
    # Confidence 0.75 and right, 0.75 and wrong, 0.95 and right.
    logits = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.05, 0.95]]).log()
    labels = torch.tensor([0, 1, 1])
    assert calibration_error(logits, labels) == pytest.approx((2 * 0.25 + 0.05) / 3)
    assert calibration_error(logits, labels, num_bins=1) == pytest.approx(abs(2 - 2.45) / 3)
    expected = -(math.log(0.75) + math.log(0.25) + math.log(0.95)) / 3
    assert negative_log_likelihood(logits, labels) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_the_temperature_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(50_000, 5, generator=generator).double()
    labels = logits.softmax(1).multinomial(1, generator=generator)[:, 0]
    found = fit_temperature(temperature * logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    scaled = temperature * logits / found
    assert calibration_error(scaled, labels) < 0.01
    best = negative_log_likelihood(scaled, labels)
    for factor in (0.98, 1.02):
        assert negative_log_likelihood(scaled * factor, labels) > best
