"""Retrieval metrics, beside a double loop in float64 and pytorch-metric-learning."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.neighbors import KNeighborsClassifier

from clce_hf.evaluation import nearest_others, retrieval_metrics

THEIRS = {
    "precision_at_1": "recall_at_1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map_at_r",
}


def batch(n=60, dim=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centers = torch.randn(classes, dim, generator=generator)
    noise = torch.randn(n, dim, generator=generator)
    return (centers[labels] + noise) * torch.rand(n, 1, generator=generator), labels


def by_hand(embeddings, labels):
    """Each query ranks the others by cosine; equal ones of other classes come first."""
    points = F.normalize(embeddings.double(), dim=1)
    values = []
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i]
        cosines = {j: (points[i] @ points[j]).item() for j in others}
        others.sort(key=lambda j: (-cosines[j], labels[j] == labels[i]))
        hits = [bool(labels[j] == labels[i]) for j in others]
        relevant = sum(hits)
        if relevant == 0:
            continue
        precisions = [sum(hits[: r + 1]) / (r + 1) for r in range(relevant) if hits[r]]
        shares = (sum(hits[:relevant]) / relevant, sum(precisions) / relevant)
        values.append((any(hits[:1]), any(hits[:5]), *shares))
    names = ("recall_at_1", "recall_at_5", "r_precision", "map_at_r")
    return dict(zip(names, np.mean(values, axis=0), strict=True))


@given(
    n=st.integers(2, 40),
    classes=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    block=st.sampled_from([1, 100, 2**23]),
)
@settings(max_examples=60, deadline=None)
def test_metrics_are_those_of_a_double_loop(n, classes, seed, block):
    embeddings, labels = batch(n, 5, classes, seed)
    labels[:2] = 0
    ours = retrieval_metrics(embeddings.double(), labels, block_elements=block)
    assert ours == pytest.approx(by_hand(embeddings, labels), abs=1e-12)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_so_they_are_where_many_similarities_are_equal(data):
    n = data.draw(st.integers(2, 16))
    # Each has length 2, so that products are exact and duplicates have equal similarities.
    signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4)
    embeddings = torch.tensor(data.draw(st.lists(signs, min_size=n, max_size=n)))
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    labels[:2] = 1
    ours = retrieval_metrics(embeddings, labels, block_elements=20)
    assert ours == pytest.approx(by_hand(embeddings, labels), abs=1e-12)
    order = torch.tensor(data.draw(st.permutations(range(n))))
    assert retrieval_metrics(embeddings[order], labels[order]) == pytest.approx(ours, abs=1e-12)


@pytest.mark.parametrize(("n", "classes"), [(1000, 2), (1000, 81), (600, 250)])
def test_metrics_are_those_of_pytorch_metric_learning(n, classes):
    embeddings, labels = batch(n, 16, classes)
    labels[0] = classes  # a class of one image
    calculator = AccuracyCalculator(
        include=tuple(THEIRS), k="max_bin_count", device=torch.device("cpu")
    )
    theirs = calculator.get_accuracy(F.normalize(embeddings), labels)
    ours = retrieval_metrics(embeddings, labels)
    assert [ours[name] for name in THEIRS.values()] == pytest.approx(
        [theirs[name] for name in THEIRS], abs=1e-6
    )


def test_recall_at_five_is_that_of_scikit_learn():
    embeddings, labels = batch(300, 4, 20)
    model = KNeighborsClassifier(metric="cosine").fit(embeddings, labels)
    neighbors = labels[torch.from_numpy(model.kneighbors(n_neighbors=5, return_distance=False))]
    expected = (neighbors == labels[:, None]).any(1).double().mean().item()
    assert 0.3 < expected < 0.95
    assert retrieval_metrics(embeddings, labels)["recall_at_5"] == pytest.approx(expected)


def test_duplicates_of_another_class_are_found_first():
    embeddings = torch.eye(3)[torch.tensor([0, 0, 1, 1, 2])]
    mixed = retrieval_metrics(embeddings, torch.tensor([0, 1, 0, 1, 2]))
    assert mixed["recall_at_1"] == 0.0
    sorted_out = retrieval_metrics(embeddings, torch.tensor([0, 0, 1, 1, 2]))
    assert set(sorted_out.values()) == {1.0}
    collapsed = retrieval_metrics(torch.ones(40, 6), torch.arange(40) % 2)
    assert set(collapsed.values()) == {0.0}


def test_what_tells_nothing_apart_finds_what_chance_finds():
    generator = torch.Generator().manual_seed(0)
    embeddings, labels = torch.randn(2000, 8, generator=generator), torch.arange(2000) % 4
    values = retrieval_metrics(embeddings, labels)
    assert values["recall_at_1"] == pytest.approx(0.25, abs=0.03)
    assert values["recall_at_5"] == pytest.approx(1 - 0.75**5, abs=0.03)
    assert values["r_precision"] == pytest.approx(0.25, abs=0.01)


def test_rows_without_a_label_are_neither_queries_nor_found():
    embeddings, labels = batch()
    marked = torch.where(labels == 3, -100, labels)
    keep = marked != -100
    embeddings[~keep] = torch.nan
    assert retrieval_metrics(embeddings, marked) == retrieval_metrics(
        embeddings[keep], marked[keep]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_and_integers_are_taken(dtype):
    embeddings, labels = batch()
    embeddings = embeddings.to(dtype).requires_grad_()
    expected = by_hand(embeddings.detach(), labels)
    assert retrieval_metrics(embeddings, labels.int()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.ones(4, 3), torch.arange(4), "a class with two images"),
        (torch.ones(4, 3), torch.full((4,), -100), r"shape \(n, d\) with n at least 2, got \(0, 3"),
        (torch.ones(4), torch.arange(4), r"shape \(n, d\)"),
        (torch.ones(4, 3), torch.arange(3), r"labels must have shape \(4,\)"),
        (torch.ones(4, 3) / torch.tensor([1.0, 1, 0]), torch.zeros(4), "4 of 4 rows hold NaN or"),
    ],
)
def test_what_cannot_be_measured_says_why(embeddings, labels, message):
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(embeddings, labels)


def test_nearest_others_are_those_of_scikit_learn():
    embeddings, _ = batch(100)
    model = KNeighborsClassifier(metric="cosine").fit(embeddings, np.zeros(100))
    expected = model.kneighbors(n_neighbors=3, return_distance=False)
    rows = torch.tensor([7, 0, 99])
    assert nearest_others(embeddings, rows, 3).tolist() == expected[rows].tolist()


def test_of_equally_near_others_the_first_rows_come_first():
    embeddings = torch.eye(2)[torch.tensor([0, 1, 0, 0, 1])]
    assert nearest_others(embeddings, torch.tensor([2, 4]), 4).tolist() == [
        [0, 3, 1, 4],
        [1, 0, 2, 3],
    ]
    assert nearest_others(embeddings, torch.tensor([2]), 9).shape == (1, 4)  # there are no more


@pytest.mark.slow
@pytest.mark.parametrize("classes", [1, 1000])
def test_fifty_thousand_embeddings_fit_in_a_gigabyte(classes):
    # Of one class of 5,000 or a thousand of 5; the others are found by them, and are no queries.
    script = f"""
import resource, torch
from clce_hf.evaluation import retrieval_metrics
embeddings, labels = torch.randn(50_000, 768), torch.arange(50_000)
labels[:5000] = labels[:5000] % {classes}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
retrieval_metrics(embeddings, labels)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    # The embeddings themselves are part of the gigabyte.
    assert int(done.stdout) * 1024 < 2**30 - 50_000 * 768 * 4
