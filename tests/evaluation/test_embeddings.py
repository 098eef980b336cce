import math
import subprocess
import sys

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
    similarities = metrics.class_similarities(embeddings, labels, block_elements=block)
    aligned = metrics.alignment(embeddings, labels, block_elements=block)
    uniform = metrics.uniformity(embeddings, block_elements=block)
    every = list(pairs(embeddings, labels))
    for name, is_same in (("within", True), ("between", False)):
        cosines = [(a @ b).item() for a, b, same in every if same is is_same]
        assert similarities[name] == pytest.approx(np.mean(cosines), abs=1e-6)
    squared = [(a - b).square().sum().item() for a, b, same in every if same]
    assert aligned == pytest.approx(np.mean(squared), abs=1e-6)
    potentials = [math.exp(-2 * (a - b).square().sum().item()) for a, b, _ in every]
    assert uniform == pytest.approx(math.log(np.mean(potentials)), abs=1e-5)


@pytest.mark.parametrize("block", [7, 2**22])
@pytest.mark.parametrize("seed", range(4))
def test_neighbors_and_silhouettes_are_those_of_scikit_learn(seed, block):
    embeddings, labels = batch(seed=seed)
    labels[0] = 9  # a class of one image
    ours = metrics.silhouette(embeddings, labels, block_elements=block)
    assert ours == pytest.approx(silhouette_score(embeddings, labels, metric="cosine"), abs=1e-5)
    hits = []
    for i in range(len(labels)):
        others = np.delete(np.arange(len(labels)), i)
        model = KNeighborsClassifier(5, metric="cosine").fit(embeddings[others], labels[others])
        hits.append(model.predict(embeddings[i : i + 1])[0] == labels[i].item())
    assert metrics.knn_accuracy(embeddings, labels, k=5, block_elements=block) == np.mean(hits)


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
        (lambda e, y: metrics.iso_score(e[:, :1]), "at least two dimensions"),
        (lambda e, y: metrics.iso_score(torch.ones(4, 3)), "all embeddings are equal"),
        (lambda e, y: metrics.uniformity(e[0]), r"shape \(n, d\)"),
        (lambda e, y: metrics.alignment(e[:3], torch.arange(3)), "two classes"),
        (lambda e, y: metrics.silhouette(e, torch.zeros_like(y)), "two classes"),
        (lambda e, y: metrics.knn_accuracy(e, y, k=60), r"k must lie in \[1, 59\], got 60"),
        (lambda e, y: metrics.knn_accuracy(e, y[:-1]), r"labels must have shape \(60,\)"),
    ],
)
def test_what_cannot_be_measured_says_why(measure, message):
    with pytest.raises(ValueError, match=message):
        measure(*batch())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dim"),
    [
        *((name, 768) for name in ("iso_score", "alignment", "class_similarities", "silhouette")),
        # Of all pairs, whose time grows with the dimension, but whose blocks do not.
        *(("uniformity", 64), ("knn_accuracy", 64)),
    ],
)
def test_fifty_thousand_embeddings_fit_in_a_gigabyte(name, dim):
    script = f"""
import resource, torch
from clce_hf.evaluation import embeddings as metrics
embeddings, labels = torch.randn(50_000, {dim}), torch.randint(100, (50_000,))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arguments = (embeddings,) if {name!r} in ("iso_score", "uniformity") else (embeddings, labels)
metrics.{name}(*arguments)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # The embeddings themselves are part of the gigabyte, and so is, with fewer dimensions, what a
    # copy of unit length lacks.
    embeddings, missing = 50_000 * 768 * 4, 50_000 * (768 - dim) * 4
    assert int(done.stdout) * 1024 < 2**30 - embeddings - missing
