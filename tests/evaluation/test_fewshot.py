import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from easyfsl.methods import SimpleShot
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from clce_hf.evaluation.fewshot import accuracy_of_episodes, few_shot_accuracy, sample_episodes


def clusters(num_classes=8, of_each=30, dim=16, spread=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(num_classes, dim, generator=generator)
    labels = torch.arange(num_classes).repeat(of_each)
    noise = torch.randn(len(labels), dim, generator=generator)
    return centers[labels] + spread * noise, labels


SHAPE = {"n_way": 5, "k_shot": 5, "num_queries": 15, "num_episodes": 40, "seed": 0}


def by_hand(embeddings, episodes, classify):
    """One episode and one query at a time."""
    accuracies = []
    for support, query in zip(episodes.support, episodes.query, strict=True):
        predict = classify(embeddings[support])
        hits = [predict(embeddings[row]) == i for i, rows in enumerate(query) for row in rows]
        accuracies.append(sum(hits) / len(hits))
    return torch.tensor(accuracies, dtype=torch.float64)


def nearest_by_cosine(support):
    centroids = [sum(point / point.norm() for point in points) for points in support]
    return lambda q: int(np.argmax([F.cosine_similarity(q, c, dim=0).item() for c in centroids]))


def logistic(support):
    points = F.normalize(support.flatten(0, 1), dim=1).double().numpy()
    truth = np.repeat(np.arange(len(support)), support.shape[1])
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(points, truth)
    return lambda q: int(model.predict(F.normalize(q, dim=0)[None].double().numpy())[0])


@pytest.mark.parametrize(
    ("classifier", "classify"), [("cosine", nearest_by_cosine), ("logistic", logistic)]
)
@pytest.mark.parametrize("k_shot", [1, 5])
@pytest.mark.parametrize("chunk", [1, 2**24])
def test_episodes_are_those_of_a_plain_loop(classifier, classify, k_shot, chunk):
    embeddings, labels = clusters()
    episodes = sample_episodes(labels, **{**SHAPE, "k_shot": k_shot, "num_episodes": 12})
    ours = accuracy_of_episodes(embeddings, episodes, classifier, max_elements=chunk)
    assert torch.equal(ours, by_hand(embeddings, episodes, classify))
    assert 0.3 < ours.mean() < 0.99


def test_episodes_are_those_of_easyfsl():
    embeddings, labels = clusters()
    embeddings = F.normalize(embeddings, dim=1)
    episodes = sample_episodes(labels, **SHAPE)
    method = SimpleShot(backbone=torch.nn.Identity())
    expected = []
    truth = torch.arange(5)[:, None]
    for support, query in zip(episodes.support, episodes.query, strict=True):
        method.process_support_set(embeddings[support.flatten()], truth.expand(5, 5).flatten())
        predicted = method(embeddings[query.flatten()]).argmax(1)
        expected.append((predicted.view(5, 15) == truth).double().mean())
    assert torch.equal(accuracy_of_episodes(embeddings, episodes), torch.stack(expected))


@given(
    st.integers(2, 6),
    st.integers(1, 4),
    st.integers(1, 5),
    st.lists(st.integers(9, 20), min_size=6, max_size=9),
    st.integers(0, 2**31),
)
@settings(max_examples=50, deadline=None)
def test_an_episode_has_distinct_rows_of_distinct_classes(n, k, q, sizes, seed):
    labels = torch.cat([torch.full((size,), 7 * i) for i, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    shape = {"n_way": n, "k_shot": k, "num_queries": q, "num_episodes": 5, "seed": seed}
    episodes = sample_episodes(labels, **shape)
    assert episodes.support.shape == (5, n, k) and episodes.query.shape == (5, n, q)
    for rows in torch.cat([episodes.support, episodes.query], dim=2):
        assert rows.unique().numel() == n * (k + q)
        of_way = labels[rows]
        assert (of_way == of_way[:, :1]).all() and of_way[:, 0].unique().numel() == n
    again = sample_episodes(labels, **shape)
    assert torch.equal(again.support, episodes.support) and torch.equal(again.query, episodes.query)


def test_every_row_is_drawn_about_as_often():
    labels = torch.arange(6).repeat(20)
    episodes = sample_episodes(labels, n_way=3, k_shot=2, num_queries=3, num_episodes=4000, seed=1)
    for rows, expected in ((episodes.support, 200.0), (episodes.query, 300.0)):
        counts = rows.flatten().bincount(minlength=120).double()
        chi_square = ((counts - expected).square() / expected).sum()
        assert chi_square < 190  # 119 degrees of freedom: one in 50,000


def test_the_interval_covers_what_it_says():
    embeddings, labels = clusters(spread=4.0)
    far = few_shot_accuracy(embeddings, labels, num_episodes=4000, seed=99).mean
    results = [few_shot_accuracy(embeddings, labels, num_episodes=50, seed=i) for i in range(200)]
    covered = sum(abs(result.mean - far) <= result.interval for result in results)
    assert 178 <= covered <= 199
    accuracies = results[0].accuracies
    assert results[0].interval == pytest.approx(1.96 * accuracies.std().item() / math.sqrt(50))


def test_rows_without_a_label_are_left_out():
    _, labels = clusters(num_classes=3)
    labels[labels == 2] = -100
    episodes = sample_episodes(labels, **{**SHAPE, "n_way": 2})
    assert set(labels[episodes.support].flatten().tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_way": 1}, "n_way must be at least 2, got 1"),
        ({"k_shot": 0}, "k_shot must be at least 1, got 0"),
        ({"num_queries": 0}, "num_queries must be at least 1"),
        ({"num_episodes": 0}, "num_episodes must be at least 1"),
        ({"n_way": 9}, "but 8 have that many"),
        ({"k_shot": 16}, "need 5 classes of 31 images, but 0 have that many, and the largest has"),
        ({"classifier": "svm"}, "one of cosine, logistic, got 'svm'"),
    ],
)
def test_bad_episodes_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        few_shot_accuracy(*clusters(), **wrong)
