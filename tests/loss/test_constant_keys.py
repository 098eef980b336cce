"""Keys that are constant, as a memory of past embeddings is, in the loss alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.blockings import in_every_blocking
from support.reference import contrastive_reference, soft_contrastive_reference
from torch.autograd import gradcheck

from clce_hf.loss.contrastive import contrastive_sum
from clce_hf.loss.distributed import Keys, contrastive_term
from clce_hf.loss.pairs import count_positives

VARIANTS = ["in", "out"]
CLASSES = 4


def random_rows(n, dim=5, seed=0, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(batch, past_rows, labels, **hyperparameters):
    """Contrast a batch with keys of the past; the labels are of both, of the batch first."""
    leaf, n = batch.clone().requires_grad_(), len(batch)
    past = Keys(F.normalize(past_rows), labels[n:])
    term = contrastive_term(leaf, labels[:n], past=past, **hyperparameters)
    term.loss.backward()
    return term, leaf.grad


def assert_is_the_double_loop(reference, batch, past_rows, labels, temperature, beta, variant):
    term, gradient = value_and_gradient(
        batch, past_rows, labels, temperature=temperature, beta=beta, variant=variant
    )
    leaf = batch.clone().requires_grad_()
    rows = torch.cat([leaf, past_rows])
    expected = reference(rows, labels.tolist(), temperature, beta, variant, num_anchors=len(batch))
    expected.backward()
    torch.testing.assert_close(term.loss, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-7, atol=1e-8 / temperature)
    return term


betas = st.sampled_from([0.0, 1.0]) | st.floats(0, 10)
ids = st.sampled_from([0, 1, 2, -100])


@settings(deadline=None, max_examples=100)
@given(
    of_batch=st.lists(ids, min_size=1, max_size=6),
    of_past=st.lists(ids, max_size=9),
    temperature=st.floats(0.05, 10),
    beta=betas,
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_value_and_gradient_equal_the_double_loop(
    of_batch, of_past, temperature, beta, variant, seed
):
    labels = of_batch + of_past
    rows = random_rows(len(labels), seed=seed)
    batch, past = rows[: len(of_batch)], rows[len(of_batch) :]
    term = assert_is_the_double_loop(
        contrastive_reference, batch, past, torch.tensor(labels), temperature, beta, variant
    )
    assert term.num_positives.tolist() == [
        0 if label == -100 else labels.count(label) - 1 for label in of_batch
    ]
    assert len(term.keys.embeddings) == len(term.keys.targets) == len(of_batch)


@settings(deadline=None, max_examples=60)
@given(
    ids=st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=12),
    in_batch=st.integers(1, 6),
    temperature=st.floats(0.05, 10),
    beta=betas,
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_soft_labels_equal_the_double_loop(ids, in_batch, temperature, beta, variant, seed):
    one_hot = F.one_hot(torch.tensor(ids), CLASSES).double()
    share = torch.tensor([[1.0, 0.7, 0.45][i % 3] for i in range(len(ids))])[:, None].double()
    labels = share * one_hot + (1 - share) * one_hot.roll(1, 1)
    rows = random_rows(len(ids), seed=seed)
    term = assert_is_the_double_loop(
        soft_contrastive_reference,
        *(rows[:in_batch], rows[in_batch:], labels, temperature, beta, variant),
    )
    torch.testing.assert_close(term.num_positives, count_positives(labels)[:in_batch])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("of_batch", "of_past"),
    [
        ([0, 1, 2], [3, 3, 3, 3]),  # no positive anywhere
        ([0, 1, 2], [2, 0, 1, 0]),  # positives in the past alone
        ([0, 0, 0], [0, 0]),  # no negative
        ([0, 0, 1, 1], [-100, -100]),
        ([-100, -100], [0, 1]),
        ([0, 0, 1], []),
    ],
)
def test_edge_cases(of_batch, of_past, variant):
    labels = torch.tensor(of_batch + of_past, dtype=torch.long)
    rows = random_rows(len(labels))
    n = len(of_batch)
    term = assert_is_the_double_loop(
        contrastive_reference, rows[:n], rows[n:], labels, 0.5, 1.0, variant
    )
    without = contrastive_term(rows[:n], labels[:n], temperature=0.5, beta=1.0, variant=variant)
    if not of_past:
        assert torch.equal(term.loss, without.loss)
    assert (term.loss == 0) == (not term.num_positives.any())


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_empty_batch_is_zero_and_attached(variant):
    term, gradient = value_and_gradient(
        *(random_rows(0), random_rows(3), torch.arange(3)),
        **{"temperature": 0.5, "beta": 1.0, "variant": variant},
    )
    assert term.loss == 0 and gradient.shape == (0, 5)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beta", [0.0, 1.0])
@pytest.mark.parametrize("is_soft", [False, True])
def test_the_blocks_do_not_show(variant, beta, is_soft):
    rows = random_rows(60)
    labels = torch.arange(60) % CLASSES
    if is_soft:
        labels = 0.75 * F.one_hot(labels, CLASSES).double() + 0.0625
    first, *others = in_every_blocking(
        rows[:23], labels, beta, variant, constant_keys=F.normalize(rows[23:])
    )
    assert len(others) == 2
    for result in others:
        torch.testing.assert_close(result, first)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize(
    "labels", [[0, 0, 1, 1, 2, 0, 2, 3], [0, 1, 1, -100, 2, -100, 0, 2], [0] * 8]
)
def test_gradcheck(variant, beta, labels):
    batch, past = random_rows(8, 4).split([5, 3])
    targets = torch.tensor(labels)
    past = Keys(F.normalize(past), targets[5:])

    def loss(embeddings):
        return contrastive_term(
            embeddings, targets[:5], temperature=0.3, beta=beta, variant=variant, past=past
        ).loss

    assert gradcheck(loss, batch.clone().requires_grad_())


def test_nothing_is_spent_on_the_gradient_of_constant_keys():
    keys = F.normalize(random_rows(4)).requires_grad_()
    constant = F.normalize(random_rows(1000, seed=1)).requires_grad_()
    labels = torch.arange(1004) % CLASSES
    total = contrastive_sum(keys, labels, range(4), 0.5, 1.0, "in", constant)
    (saved,) = total.grad_fn.saved_tensors
    assert saved.shape == keys.shape
    total.backward()
    assert keys.grad.abs().max() > 0 and constant.grad is None


@settings(deadline=None, max_examples=60)
@given(
    of_batch=st.lists(ids, max_size=6),
    of_past=st.lists(st.integers(-1, 4) | st.sampled_from([-100, 2**40]), max_size=9),
)
def test_positives_of_the_past_are_counted(of_batch, of_past):
    found = count_positives(
        torch.tensor(of_batch, dtype=torch.long), torch.tensor(of_past, dtype=torch.long)
    )
    labels = of_batch + of_past
    expected = [0 if label == -100 else labels.count(label) - 1 for label in of_batch]
    assert found.tolist() == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_is_exact_to_its_rounding_with_many_keys(variant):
    batch, past = random_rows(8, 64), random_rows(3000, 64, seed=1)
    labels = torch.arange(3008) % 50
    hyperparameters = {"temperature": 0.1, "beta": 1.0, "variant": variant}
    exact, gradient = value_and_gradient(batch, past, labels, **hyperparameters)
    rounded, of_rounded = value_and_gradient(batch.float(), past.float(), labels, **hyperparameters)
    assert rounded.loss.dtype == torch.float32
    assert rounded.loss.item() == pytest.approx(exact.loss.item(), rel=1e-5)
    assert float((of_rounded - gradient).abs().max() / gradient.abs().max()) < 1e-5
