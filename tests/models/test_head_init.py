"""The weights from class means, beside the same in plain loops."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clce_hf.models.head_init import class_mean_weights


def shares_of(targets, num_classes):
    return targets.double() if targets.dim() == 2 else F.one_hot(targets, num_classes).double()


def unit(vector):
    norm = vector.norm()
    return vector / norm if norm > 1e-6 else torch.zeros_like(vector)


def loss(scale, embeddings, shares):
    """Negative log-likelihood at a scale, each image left out of the sums that it is told by."""
    n, num_classes = shares.shape
    terms, count = [], 0.0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        logits, told = [], []
        for c in range(num_classes):
            there = sum(shares[j, c] for j in others) > 1e-6
            mean = sum(
                (shares[j, c] * embeddings[j] for j in others), torch.zeros_like(embeddings[0])
            )
            logits.append(
                scale * unit(mean) @ embeddings[i] if there else torch.tensor(0.0).double()
            )
            told.append(float(shares[i, c]) if there else 0.0)
        terms.append((torch.stack(logits).log_softmax(0), told))
        count += sum(told)
    total = 0.0
    for log_probabilities, told in terms:
        for c in range(num_classes):
            one_more = sum(told) / count / num_classes
            total -= float(log_probabilities[c]) * (told[c] + one_more)
    return total


def assert_as_in_loops(embeddings, targets, num_classes, has_bias=True):
    weight, bias = class_mean_weights(embeddings, targets, num_classes, has_bias)
    assert weight.dtype == bias.dtype == torch.float32
    rows, shares = embeddings.double(), shares_of(targets, num_classes)
    mean = rows.mean(0)
    centered = rows - mean
    if not has_bias:
        centered = centered - torch.outer(centered @ unit(mean), unit(mean))
        assert not bias.any()
    spread = centered.square().sum(1).mean().sqrt()
    sums = [
        unit(sum(shares[i, c] * centered[i] / spread for i in range(len(rows))))
        for c in range(num_classes)
    ]
    scales = weight.double().norm(dim=1) * spread
    found = float(scales.max())
    torch.testing.assert_close(
        weight.double() * spread, found * torch.stack(sums), rtol=1e-4, atol=1e-5 * found + 1e-9
    )
    if has_bias:
        torch.testing.assert_close(
            bias.double(), -weight.double() @ mean, rtol=1e-4, atol=1e-5 * found + 1e-9
        )
    grid = [math.exp(x / 8) for x in range(-55, 73)]
    scores = [loss(scale, centered / spread, shares) for scale in grid]
    assert loss(found, centered / spread, shares) <= min(scores) + 1e-6


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("is_soft", [False, True])
@pytest.mark.parametrize("noise", [0.1, 1.0, 5.0])
def test_directions_and_scale_are_those_of_plain_loops(noise, is_soft, has_bias):
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])  # of class 3 there is one image
    means = torch.randn(5, 6, generator=generator)
    embeddings = means[ids] + noise * torch.randn(10, 6, generator=generator) + 3.0
    targets = ids
    if is_soft:
        share = torch.rand(10, 1, generator=generator)
        targets = share * F.one_hot(ids, 5) + (1 - share) * F.one_hot(ids.flip(0), 5)
    assert_as_in_loops(embeddings, targets, 5, has_bias)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(2, 7), st.integers(2, 4), st.integers(2, 5), st.integers(0, 10**6), st.booleans()
)
def test_any_few_images_come_out_as_in_plain_loops(n, num_classes, dim, seed, is_soft):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, dim, generator=generator)
    targets = torch.randint(0, num_classes, (n,), generator=generator)
    if targets.bincount(minlength=num_classes).max() < 2:
        targets[:2] = 0
    if is_soft:
        targets = torch.rand(n, num_classes, generator=generator) + 0.1
        targets = targets / targets.sum(1, keepdim=True)
    assert_as_in_loops(embeddings, targets, num_classes)


def test_ids_are_one_hot_probabilities():
    embeddings, ids = torch.randn(12, 4), torch.arange(12) % 3
    by_id = class_mean_weights(embeddings, ids, 3)
    torch.testing.assert_close(class_mean_weights(embeddings, F.one_hot(ids).float(), 3), by_id)


def test_the_logits_do_not_depend_on_the_place_and_size_of_the_embeddings():
    embeddings, ids = torch.randn(20, 4).double(), torch.arange(20) % 3
    moved = 1e4 * embeddings + torch.randn(4) * 1e5
    (weight, bias), (other, offset) = (class_mean_weights(e, ids, 3) for e in (embeddings, moved))
    torch.testing.assert_close(
        moved @ other.T.double() + offset, embeddings @ weight.T.double() + bias, rtol=0, atol=1e-3
    )


def test_more_images_than_are_scored_come_to_nearly_the_same():
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(20_000) % 500
    means = torch.randn(500, 8, generator=generator)
    embeddings = means[ids] + torch.randn(20_000, 8, generator=generator)
    many, _ = class_mean_weights(embeddings, ids, 500)
    few, _ = class_mean_weights(embeddings[:8000], ids[:8000], 500)  # all of which are scored
    assert float(many.norm(dim=1).mean() / few.norm(dim=1).mean()) == pytest.approx(1.0, abs=0.1)


DEGENERATE = {
    "one image a class": (torch.randn(3, 4), torch.arange(3)),
    "identical": (torch.full((6, 4), 0.1), torch.arange(6) % 3),
    "all zero": (torch.zeros(6, 4), torch.arange(6) % 3),
    "a class around the mean of all": (
        torch.tensor([[1.0, 0, 0], [-1, 0, 0], [2, 1, 0], [2, -1, 0], [-2, 1, 0], [-2, -1, 0]]),
        torch.tensor([0, 0, 1, 1, 2, 2]),
    ),
    "one class alone": (torch.randn(4, 4), torch.zeros(4, dtype=torch.long)),
    "one image": (torch.randn(1, 4), torch.zeros(1, dtype=torch.long)),
    "no image": (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)),
    "apart without an error": (10 * torch.eye(3)[torch.arange(9) % 3], torch.arange(9) % 3),
    "huge": (torch.randn(9, 4).half() * 1e4, torch.arange(9) % 3),
    "one dimension": (torch.randn(9, 1), torch.arange(9) % 3),
}


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_images_give_finite_weights(name, dtype, has_bias):
    embeddings, ids = DEGENERATE[name]
    weight, bias = class_mean_weights(embeddings.to(dtype), ids, 3, has_bias)
    assert weight.dtype == bias.dtype == torch.float32
    assert weight.isfinite().all() and bias.isfinite().all()
    assert weight.shape == (3, embeddings.shape[1])


def test_an_image_a_class_is_enough_for_directions():
    embeddings = torch.randn(3, 8)
    weight, bias = class_mean_weights(embeddings, torch.arange(3), 3)
    assert (embeddings @ weight.T + bias).argmax(1).tolist() == [0, 1, 2]


def test_classes_apart_without_an_error_are_not_told_with_certainty():
    embeddings, ids = 10 * torch.eye(3)[torch.arange(9) % 3], torch.arange(9) % 3
    weight, bias = class_mean_weights(embeddings, ids, 3)
    sure = (embeddings @ weight.T + bias).softmax(1).amax(1)
    assert (sure > 0.9).all() and (sure < 0.99).all()


def test_a_class_without_an_image_has_no_direction():
    weight, bias = class_mean_weights(torch.randn(8, 4) + 5, torch.arange(8) % 2, 3)
    assert not weight[2].any() and bias[2] == 0
    assert weight[:2].any(1).all()
