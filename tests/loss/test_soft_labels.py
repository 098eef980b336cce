"""Class probabilities in place of class ids, in the loss alone."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.blockings import in_every_blocking
from support.reference import soft_contrastive_reference
from torch.autograd import gradcheck
from torchvision.transforms import v2

from clce_hf import CLCELoss, clce_loss, label_aware_contrastive_loss
from clce_hf.loss.pairs import count_anchors, count_positives

VARIANTS = ["in", "out"]
CLASSES = 4


def random_batch(n=12, dim=5, seed=0, dtype=torch.float64):
    """Embeddings and mixed labels, some of them one-hot."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, dim, generator=generator, dtype=dtype)
    ids = torch.randint(CLASSES, (2, n), generator=generator)
    share = torch.rand(n, 1, generator=generator, dtype=dtype).round(decimals=2)
    share[::3] = 1.0
    first, second = F.one_hot(ids, CLASSES).to(dtype)
    return embeddings, share * first + (1 - share) * second


def value_and_gradient(embeddings, labels, **hyperparameters):
    leaf = embeddings.clone().requires_grad_()
    loss = label_aware_contrastive_loss(leaf, labels, **hyperparameters)
    loss.backward()
    return loss.detach(), leaf.grad


# Rows of small whole numbers, to be divided by their sums; some are one-hot.
shares = st.lists(
    st.lists(st.integers(0, 3), min_size=CLASSES, max_size=CLASSES).filter(any)
    | st.sampled_from([[int(i == j) for j in range(CLASSES)] for i in range(CLASSES)]),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, max_examples=60)
@given(
    shares=shares,
    dim=st.integers(1, 6),
    temperature=st.floats(0.05, 10),
    beta=st.floats(0, 10),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_value_and_gradient_equal_the_double_loop(shares, dim, temperature, beta, variant, seed):
    embeddings, _ = random_batch(len(shares), dim, seed=seed)
    labels = torch.tensor(shares, dtype=torch.float64)
    labels = labels / labels.sum(1, keepdim=True)
    loss, gradient = value_and_gradient(
        embeddings, labels, temperature=temperature, beta=beta, variant=variant
    )
    theirs = embeddings.clone().requires_grad_()
    reference = soft_contrastive_reference(theirs, labels.tolist(), temperature, beta, variant)
    reference.backward()
    torch.testing.assert_close(loss, reference.detach(), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradient, theirs.grad, rtol=1e-7, atol=1e-8 / temperature)


@settings(deadline=None, max_examples=60)
@given(
    ids=st.lists(st.integers(0, CLASSES - 1), max_size=9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    of_labels=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    temperature=st.floats(0.01, 10),
    beta=st.floats(0, 10),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_one_hot_labels_are_class_ids_bit_by_bit(
    ids, dtype, of_labels, temperature, beta, variant, seed
):
    embeddings, _ = random_batch(len(ids), 6, seed=seed, dtype=dtype)
    hard = torch.tensor(ids, dtype=torch.long)
    soft = F.one_hot(hard, CLASSES).to(of_labels)
    hyperparameters = {"temperature": temperature, "beta": beta, "variant": variant}
    for ours, theirs in zip(
        value_and_gradient(embeddings, soft, **hyperparameters),
        value_and_gradient(embeddings, hard, **hyperparameters),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_hot_labels_are_class_ids_in_blocks_too(variant):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2500, 8, generator=generator)
    hard = torch.randint(CLASSES, (2500,), generator=generator)
    soft = F.one_hot(hard, CLASSES).float()
    for ours, theirs in zip(
        value_and_gradient(embeddings, soft, variant=variant),
        value_and_gradient(embeddings, hard, variant=variant),
        strict=True,
    ):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_blocks_do_not_show(variant):
    first, *others = in_every_blocking(*random_batch(n=23), 1.0, variant)
    for result in others:
        torch.testing.assert_close(result, first)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_gradcheck(variant, beta):
    embeddings, labels = random_batch(6, 4)
    logits = random_batch(6, CLASSES, seed=1)[0].requires_grad_()

    def loss(logits, embeddings):
        return clce_loss(
            logits,
            embeddings,
            labels,
            temperature=0.3,
            beta=beta,
            variant=variant,
            label_smoothing=0.1,
        )

    assert gradcheck(loss, (logits, embeddings.requires_grad_()))


def test_the_cross_entropy_takes_the_soft_labels():
    embeddings, labels = random_batch()
    logits = random_batch(12, CLASSES, seed=1)[0]
    term = label_aware_contrastive_loss(embeddings, labels)
    smoothed = 0.8 * labels + 0.2 / CLASSES
    cross_entropy = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    for weight in (0.0, 0.3, 1.0):
        loss = clce_loss(logits, embeddings, labels, contrastive_weight=weight, label_smoothing=0.2)
        torch.testing.assert_close(loss, (1 - weight) * cross_entropy + weight * term)
    plain = clce_loss(logits, embeddings, labels)
    assert torch.equal(CLCELoss()(logits, embeddings, labels), plain)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("factor", [0.992, 1.008])
def test_labels_are_scaled_to_sum_to_1(variant, factor):
    embeddings, labels = random_batch()
    logits = random_batch(12, CLASSES, seed=1)[0]
    torch.testing.assert_close(
        value_and_gradient(embeddings, factor * labels, variant=variant),
        value_and_gradient(embeddings, labels, variant=variant),
    )
    for weight in (0.0, 0.5):
        torch.testing.assert_close(
            clce_loss(logits, embeddings, factor * labels, contrastive_weight=weight),
            clce_loss(logits, embeddings, labels, contrastive_weight=weight),
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_torchvision_mixes_fits(variant):
    images, ids = torch.randn(8, 3, 6, 6), torch.arange(8) % CLASSES
    mix = v2.RandomChoice([v2.MixUp(num_classes=CLASSES), v2.CutMix(num_classes=CLASSES)])
    mixed, labels = mix(images, ids)
    embeddings = mixed.flatten(1).requires_grad_()
    clce_loss(mixed[:, 0, 0, :CLASSES], embeddings, labels, variant=variant).backward()
    assert embeddings.grad.abs().max() > 0


def test_expected_positives_are_sums_of_agreement():
    _, labels = random_batch()
    for i, own in enumerate(labels):
        expected = sum(float(own @ other) for j, other in enumerate(labels) if j != i)
        assert count_positives(labels)[i].item() == pytest.approx(expected)
    hard = labels.argmax(1)
    one_hot = F.one_hot(hard, CLASSES).float()
    assert count_positives(one_hot).tolist() == count_positives(hard).tolist()
    # Half a positive counts for half an anchor.
    assert count_anchors(torch.tensor([3.0, 1.0, 0.5, 0.0])) == 2.5
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(count_positives(labels.float()), count_positives(labels.float()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_trace_of_agreement_is_a_trace_of_loss(variant):
    embeddings, _ = random_batch(4)
    hard = torch.eye(4, dtype=torch.float64)
    apart, still = value_and_gradient(embeddings, hard, variant=variant)
    assert apart == 0 and not still.any()
    previous = math.inf
    for trace in (1e-2, 1e-3, 1e-4, 1e-5):
        mixed = (1 - trace) * hard + trace * hard.roll(1, 0)
        loss, gradient = value_and_gradient(embeddings, mixed, variant=variant)
        assert 0 < loss < 50 * trace
        assert 0 < gradient.abs().max() < 50 * trace
        assert loss < previous
        previous = loss


@pytest.mark.parametrize("variant", VARIANTS)
def test_rounding_is_no_disagreement(variant):
    embeddings, _ = random_batch(8, dtype=torch.float32)
    hard = F.one_hot(torch.arange(8) % 2, CLASSES).float()
    exact = value_and_gradient(embeddings, hard, temperature=0.02, variant=variant)
    for share in (0.3, 1e-8, 1 - 1e-8):
        # As if images were mixed with others of their class, and with next to nothing of others.
        rounded = torch.tensor(share) * hard + (1 - torch.tensor(share)) * hard
        mixed = max(share, 1 - share) * rounded + min(share, 1e-8) * hard.roll(1, 0)
        for labels in (rounded, mixed / mixed.sum(1, keepdim=True)):
            found = value_and_gradient(embeddings, labels, temperature=0.02, variant=variant)
            torch.testing.assert_close(found, exact)


@settings(deadline=None, max_examples=150)
@given(
    n=st.integers(0, 7),
    share=st.sampled_from([0.0, 1e-30, 1e-9, 1e-6, 1.1e-6, 1e-5, 1e-3, 0.5]) | st.floats(0, 1),
    of_labels=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    temperature=st.floats(0.01, 10),
    beta=st.floats(0, 10),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_finite_input_gives_finite_loss_and_gradient(
    n, share, of_labels, dtype, temperature, beta, variant, seed
):
    embeddings, _ = random_batch(n, 6, seed=seed, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    one_hot = F.one_hot(torch.randint(CLASSES, (n,), generator=generator), CLASSES).to(of_labels)
    labels = share * one_hot.roll(1, 0) + (1 - share) * one_hot
    loss, gradient = value_and_gradient(
        embeddings.to(dtype), labels, temperature=temperature, beta=beta, variant=variant
    )
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


def test_precision_in_float32():
    worst = 0.0
    for variant, seed in itertools.product(VARIANTS, range(3)):
        exact, labels = random_batch(n=16, dim=64, seed=seed)
        leaf = exact.clone().requires_grad_()
        truth = soft_contrastive_reference(leaf, labels.tolist(), 0.1, 1.0, variant)
        truth.backward()
        _, gradient = value_and_gradient(
            exact.float(), labels.float(), temperature=0.1, variant=variant
        )
        error = (gradient.double() - leaf.grad).abs().max() / leaf.grad.abs().max()
        worst = max(worst, float(error))
    assert worst < 1e-5


def test_autocast_does_not_reach_the_labels():
    embeddings, labels = random_batch(dtype=torch.float32)
    plain = label_aware_contrastive_loss(embeddings, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(label_aware_contrastive_loss(embeddings, labels), plain)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1.0, 1.0], [0.0, 1.0]], r"sums lie between 1 and 2: .*multi-label"),
        ([[0.0, 0.0], [0.0, 1.0]], r"sums lie between 0 and 1"),
        ([[1.5, -0.5], [0.0, 1.0]], r"smallest number is -0.5"),
        ([[math.nan, 1.0], [0.0, 1.0]], "or its class probabilities"),
        ([[0.49, 0.49], [0.0, 1.0]], "sums lie between 0.98 and 1"),
    ],
)
def test_labels_that_are_no_probabilities(labels, message):
    with pytest.raises(ValueError, match=message):
        label_aware_contrastive_loss(torch.randn(2, 3), torch.tensor(labels))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 3), "logits must have shape"),
        ((3, 2), "logits must have shape"),
        ((4,), "labels must be one integer class id.*or its class probabilities"),
        ((4, 2, 1), "logits must have shape"),
    ],
)
def test_soft_labels_of_the_wrong_shape(shape, message):
    with pytest.raises(ValueError, match=message):
        clce_loss(torch.zeros(4, 2), torch.zeros(4, 3), torch.ones(shape))
