import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.losses import SupConLoss
from support.blockings import in_every_blocking
from support.reference import contrastive_reference, cross_entropy_reference
from torch.autograd import gradcheck, gradgradcheck

from clce_hf import CLCELoss, clce_loss, label_aware_contrastive_loss
from clce_hf.loss.contrastive import Blocking

VARIANTS = ["in", "out"]


def random_batch(n=12, dim=5, classes=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(n, dim, generator=generator, dtype=dtype)
    return embeddings, torch.randint(classes, (n,), generator=generator)


@settings(deadline=None, max_examples=60)
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    dim=st.integers(1, 6),
    temperature=st.floats(0.05, 10),
    beta=st.floats(0, 10),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_value_and_gradient_equal_the_double_loop(labels, dim, temperature, beta, variant, seed):
    embeddings, _ = random_batch(len(labels), dim, seed=seed)
    ours = embeddings.clone().requires_grad_()
    theirs = embeddings.clone().requires_grad_()
    loss = label_aware_contrastive_loss(
        ours, torch.tensor(labels), temperature=temperature, beta=beta, variant=variant
    )
    reference = contrastive_reference(theirs, labels, temperature, beta, variant)
    torch.testing.assert_close(loss, reference, rtol=1e-9, atol=1e-10)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-8 / temperature)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_the_blocks_do_not_show(variant, beta):
    first, *others = in_every_blocking(*random_batch(n=23), beta, variant)
    for result in others:
        torch.testing.assert_close(result, first)


@pytest.mark.parametrize(
    ("num_anchors", "num_keys", "dim", "expected"),
    [
        (23, 23, 5, Blocking(23, True)),
        (4096, 4096, 768, Blocking(512, True)),
        (4097, 4097, 768, Blocking(511, False)),
        (32, 65536, 768, Blocking(32, False)),
        (65536, 65536, 768, Blocking(192, False)),
        (0, 8, 4, Blocking(1, False)),
    ],
)
def test_blocks_fill_the_cache_and_few_slopes_are_kept(num_anchors, num_keys, dim, expected):
    assert Blocking.of(num_anchors, num_keys, dim) == expected


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 0, 0, 0, 0], [0, 1, 1, -100, -100]])
def test_gradcheck(variant, beta, labels):
    embeddings = random_batch(5, 4)[0].requires_grad_()
    logits = random_batch(5, 3, seed=1)[0].requires_grad_()

    def loss(logits, embeddings):
        return clce_loss(
            logits,
            embeddings,
            torch.tensor(labels),
            temperature=0.3,
            beta=beta,
            variant=variant,
            label_smoothing=0.1,
        )

    assert gradcheck(loss, (logits, embeddings))
    with pytest.raises(RuntimeError, match="differentiable once"):
        gradgradcheck(loss, (logits, embeddings))


def test_out_without_hard_negatives_is_supcon():
    embeddings, labels = random_batch(n=40, dim=16, classes=6)
    peer = SupConLoss(temperature=0.2)(embeddings, labels)
    ours = label_aware_contrastive_loss(
        embeddings, labels, temperature=0.2, beta=0.0, variant="out"
    )
    torch.testing.assert_close(ours, peer)


@pytest.mark.parametrize("variant", VARIANTS)
def test_invariances(variant):
    embeddings, labels = random_batch(n=20)
    loss = label_aware_contrastive_loss(embeddings, labels, variant=variant)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    scale = torch.rand(20, 1, dtype=torch.float64) * 1e6 + 1e-6
    renamed = torch.tensor([17, 3, 2**40, 0])[labels]
    for other in (
        label_aware_contrastive_loss(embeddings[order], labels[order], variant=variant),
        label_aware_contrastive_loss(embeddings * scale, labels, variant=variant),
        label_aware_contrastive_loss(embeddings, renamed, variant=variant),
    ):
        torch.testing.assert_close(other, loss)


def test_clce_is_the_weighted_sum_of_its_terms():
    embeddings, labels = random_batch()
    logits = random_batch(12, 4, seed=1)[0]
    contrastive = contrastive_reference(embeddings, labels.tolist(), 0.5, 1.0, "in")
    cross_entropy = cross_entropy_reference(logits, labels.tolist(), 0.1)
    for weight in (0.0, 0.3, 0.9, 1.0):
        loss = clce_loss(logits, embeddings, labels, contrastive_weight=weight, label_smoothing=0.1)
        torch.testing.assert_close(loss, (1 - weight) * cross_entropy + weight * contrastive)


def test_lambda_at_its_ends_keeps_both_inputs_in_the_graph():
    embeddings, labels = random_batch()
    for weight, moved, still in ((0.0, 0, 1), (1.0, 1, 0)):
        inputs = [random_batch(12, 4, seed=1)[0].requires_grad_(), embeddings.requires_grad_()]
        gradients = torch.autograd.grad(
            clce_loss(*inputs, labels, contrastive_weight=weight), inputs
        )
        assert gradients[moved].abs().max() > 0
        assert gradients[still].abs().max() == 0


def test_without_negatives_the_partition_is_the_positives_alone():
    embeddings, _ = random_batch(n=5)
    labels = torch.zeros(5, dtype=torch.long)
    loss = label_aware_contrastive_loss(embeddings, labels)
    torch.testing.assert_close(loss, torch.tensor(math.log(4.0), dtype=torch.float64))


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_an_anchor_the_loss_is_zero_and_attached(n, variant):
    embeddings = random_batch(n)[0].requires_grad_()
    loss = label_aware_contrastive_loss(embeddings, torch.arange(n), variant=variant)
    assert loss.item() == 0.0
    loss.backward()
    assert embeddings.grad is not None
    assert not embeddings.grad.any()


def test_an_empty_batch_and_one_without_labels_are_zero():
    for n in (0, 3):
        logits = torch.zeros(n, 4, requires_grad=True)
        embeddings = torch.zeros(n, 8, requires_grad=True)
        loss = clce_loss(logits, embeddings, torch.full((n,), -100))
        loss.backward()
        assert loss.item() == 0.0


def test_ignored_samples_change_nothing():
    embeddings, labels = random_batch(n=14)
    logits = random_batch(14, 4, seed=1)[0]
    labels[[2, 5, 11]] = -100
    keep = labels != -100
    for variant in VARIANTS:
        whole = clce_loss(logits, embeddings, labels, variant=variant)
        kept = clce_loss(logits[keep], embeddings[keep], labels[keep], variant=variant)
        torch.testing.assert_close(whole, kept)


@settings(deadline=None, max_examples=150)
@given(
    labels=st.lists(st.integers(0, 3), max_size=7),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    magnitude=st.sampled_from([0.0, 1e-45, 1e-20, 1e-7, 1.0, 1e4, 1e38]),
    zeros=st.booleans(),
    temperature=st.floats(0.01, 10),
    beta=st.floats(0, 10),
    variant=st.sampled_from(VARIANTS),
    seed=st.integers(0, 2**16),
)
def test_finite_input_gives_finite_loss_and_gradient(
    labels, dtype, magnitude, zeros, temperature, beta, variant, seed
):
    embeddings = random_batch(len(labels), 6, seed=seed, dtype=torch.float32)[0].clamp(-3, 3)
    embeddings = (embeddings * magnitude).clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
    embeddings = embeddings.to(dtype)
    if zeros and labels:
        embeddings[0] = 0.0
    embeddings.requires_grad_()
    # A half-precision gradient can be out of range itself where 1 / length is: upcast first.
    upcast = embeddings.detach().float().requires_grad_()
    for leaf in (embeddings, upcast):
        loss = label_aware_contrastive_loss(
            leaf, torch.tensor(labels, dtype=torch.long), temperature=temperature, beta=beta,
            variant=variant,
        )  # fmt: skip
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        loss.backward()
        if leaf.dtype == torch.float32 or magnitude >= 1.0:
            assert torch.isfinite(leaf.grad).all()


def test_precision_in_bf16_is_no_worse_than_the_naive_formula():
    for variant in VARIANTS:
        for seed in range(5):
            exact, labels = random_batch(n=32, dim=64, seed=seed)
            half = exact.to(torch.bfloat16)
            truth = contrastive_reference(half, labels.tolist(), 0.1, 1.0, variant)
            ours = label_aware_contrastive_loss(half, labels, temperature=0.1, variant=variant)
            z = half / half.norm(dim=1, keepdim=True)
            s = (z @ z.T / 0.1).exp()
            same = labels[:, None] == labels
            positives = same & ~torch.eye(32, dtype=torch.bool)
            weights = (~same).sum(1, keepdim=True) * s / (s * ~same).sum(1, keepdim=True)
            partition = (s * positives).sum(1) + (weights * s * ~same).sum(1)
            if variant == "in":
                naive = -((s * positives).sum(1) / positives.sum(1) / partition).log()
            else:
                logs = (s / partition[:, None]).log()
                naive = -(logs * positives).sum(1) / positives.sum(1)
            naive = naive[positives.any(1)].mean()
            assert (ours - truth).abs() <= (naive.double() - truth).abs() + 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_loss(dtype):
    embeddings, labels = random_batch(dtype=torch.float32)
    logits = random_batch(12, 4, seed=1, dtype=torch.float32)[0]
    plain = clce_loss(logits, embeddings, labels)
    with torch.autocast("cpu", dtype=dtype):
        inside = clce_loss(logits, embeddings, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_the_module_is_the_function():
    embeddings, labels = random_batch()
    logits = random_batch(12, 4, seed=1)[0]
    module = CLCELoss(contrastive_weight=0.4, temperature=0.2, beta=0.5, variant="out")
    expected = clce_loss(
        logits,
        embeddings,
        labels,
        contrastive_weight=0.4,
        temperature=0.2,
        beta=0.5,
        variant="out",
    )
    assert torch.equal(module(logits, embeddings, labels), expected)
    assert "contrastive_weight=0.4, temperature=0.2, beta=0.5, variant='out'" in repr(module)
    assert not list(module.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("contrastive_weight", -0.1),
        ("contrastive_weight", 1.1),
        ("contrastive_weight", math.nan),
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", math.inf),
        ("beta", -1.0),
        ("beta", math.nan),
        ("variant", "mean"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(name, value):
    embeddings, labels = random_batch()
    with pytest.raises(ValueError, match=rf"^{name} must.*{value}"):
        CLCELoss(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name} must.*{value}"):
        clce_loss(embeddings, embeddings, labels, **{name: value})


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (torch.zeros(4), torch.zeros(4, dtype=torch.long), "embeddings must be"),
        (torch.zeros(4, 0), torch.zeros(4, dtype=torch.long), "embeddings must be"),
        (torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, dtype=torch.long), "embeddings must"),
        (torch.zeros(4, 2), torch.zeros(4), "labels must be one integer"),
        (torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.long), "labels must be one integer"),
        (torch.zeros(4, 2), torch.zeros(5, dtype=torch.long), r"shape \(5,\) for 4 images"),
    ],
)
def test_a_tensor_of_the_wrong_kind_is_named(embeddings, labels, message):
    with pytest.raises(ValueError, match=message):
        label_aware_contrastive_loss(embeddings, labels)


def test_logits_of_the_wrong_shape_are_named():
    embeddings, labels = random_batch()
    with pytest.raises(ValueError, match="logits must have shape"):
        clce_loss(embeddings[:3], embeddings, labels)
