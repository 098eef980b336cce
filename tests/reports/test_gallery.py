"""Which images the gallery shows, and the nearest others of each."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from support.synthetic import run

from clce_hf.reports.gallery import search


def of_classes(labels, strength=1.0, method="CE"):
    """A model whose embeddings know the class that much, beside noise."""
    generator = torch.Generator().manual_seed(sum(method.encode()))
    labels = torch.as_tensor(labels)
    known = strength * torch.eye(int(labels.max()) + 1)[labels]
    noise = torch.randn(len(labels), 8, generator=generator)
    tensors = {"embeddings": torch.cat([known, noise], 1), "logits": known, "labels": labels}
    return run(method, **tensors)


def shares(gallery, labels):
    """Of each image that is shown, the share of neighbors in its class; successes and failures."""
    for queries in (gallery.successes, gallery.failures):
        yield [
            np.mean(
                [labels[row] == labels[q.image] for rows in q.neighbors.values() for row in rows]
            )
            for q in queries
        ]


def test_neighbors_are_those_of_scikit_learn_in_each_model():
    labels = np.arange(90) % 6
    runs = [of_classes(labels, 1.5, method) for method in ("CE", "CLCE")]
    gallery = search(runs)
    shown = [*gallery.successes, *gallery.failures]
    assert len({query.image for query in shown}) == 12
    is_right = []
    for made in runs:
        model = KNeighborsClassifier(metric="cosine").fit(made.predictions.embeddings, labels)
        expected = model.kneighbors(n_neighbors=5, return_distance=False)
        for query in shown:
            assert query.neighbors[made.method] == expected[query.image].tolist()
        is_right.append(labels[expected] == labels[:, None])
    successes, failures = shares(gallery, labels)
    assert len(successes) == len(failures) == 6
    assert min(successes) >= 0.5 > max(failures)
    num_failures = (np.mean(is_right, axis=(0, 2)) < 0.5).sum()
    assert (gallery.num_searched, gallery.num_failures) == (90, num_failures)


@pytest.mark.parametrize(
    ("strength", "num_successes", "num_failures"), [(1e3, 12, 0), (-1e3, 12, 0), (0.0, 6, 6)]
)
def test_where_a_kind_is_rare_the_other_fills_the_gallery(strength, num_successes, num_failures):
    gallery = search([of_classes(np.arange(600) % 3, strength)])
    assert gallery.num_searched == 200
    assert (len(gallery.successes), len(gallery.failures)) == (num_successes, num_failures)


def test_a_model_that_is_always_wrong_has_failures_alone():
    labels = np.arange(40) % 20
    embeddings = torch.eye(2)[torch.arange(40) // 20]  # the other of its class is far away
    gallery = search([run(labels=torch.tensor(labels), embeddings=embeddings)])
    assert (len(gallery.successes), len(gallery.failures), gallery.num_failures) == (0, 12, 40)


def test_images_are_of_as_many_classes_as_possible():
    labels = np.arange(810) % 81
    gallery = search([of_classes(labels, 2.0)])
    for queries in (gallery.successes, gallery.failures):
        assert len({labels[query.image] for query in queries}) == len(queries) == 6
    two = np.array([0] * 390 + [1] * 10)
    gallery = search([of_classes(two, 5.0)])
    assert sum(two[query.image] for query in gallery.successes) == 6


def test_the_same_images_are_shown_again():
    made = of_classes(np.arange(300) % 7, 2.0)
    first, second = search([made]), search([made])
    assert first == second


def test_an_image_without_another_of_its_class_is_no_query():
    labels = [0, 0, 0, 0, 1]
    gallery = search([of_classes(labels)])
    shown = [*gallery.successes, *gallery.failures]
    assert sorted(query.image for query in shown) == [0, 1, 2, 3]
    assert all(len(query.neighbors["CE"]) == 4 for query in shown)  # there are no five others
    assert search([of_classes([0, 1, 2])]) is None
