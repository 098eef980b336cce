"""The logit-adjusted loss against its formula in float64, and in trainers of both kinds."""

import math

import pytest
import torch
from support.tiny import (
    NUM_CLASSES,
    GradientRecorder,
    Images,
    SoftImages,
    beit,
    config,
    largest_relative_difference,
    logged,
    vit,
)
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from clce_hf import CLCETrainer, LogitAdjustedLoss
from clce_hf.data import label_counts

COUNTS = [50, 8, 1, 13]


class Unequal(Images):
    """Images of which the first class has 20 and the last none."""

    def __init__(self, n=32, seed=0):
        super().__init__(n, seed)
        self.targets = [0 if i < 20 else 1 + i % 2 for i in range(n)]


def reference(logits, probabilities, counts=COUNTS, tau=1.0):
    """The mean over rows of -sum q log softmax(f + tau log p), in float64, as the paper has it."""
    shares = [max(count, 0.5) for count in counts]
    total, losses = sum(shares), []
    for row, wanted in zip(logits.tolist(), probabilities.tolist(), strict=True):
        scores = [
            math.exp(f) * (share / total) ** tau for f, share in zip(row, shares, strict=True)
        ]
        logs = [math.log(score / sum(scores)) for score in scores]
        losses.append(-sum(q * log for q, log in zip(wanted, logs, strict=True)))
    return sum(losses) / len(losses)


def batch(n=9):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, NUM_CLASSES, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.arange(n) % NUM_CLASSES


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("counts", [COUNTS, [3, 0, 1, 0]])
def test_it_is_the_formula_of_the_paper(tau, counts):
    logits, labels = batch()
    loss = LogitAdjustedLoss(counts, tau)
    expected = reference(logits, torch.eye(NUM_CLASSES)[labels], counts, tau)
    assert loss({"logits": logits}, labels).item() == pytest.approx(expected, rel=1e-12)
    assert loss((logits,), labels[:, None]).item() == pytest.approx(expected, rel=1e-12)
    of_step = loss({"logits": logits}, labels, num_items_in_batch=torch.tensor(18))
    assert of_step.item() == pytest.approx(expected / 2, rel=1e-12)
    if tau == 0:
        assert loss(logits, labels).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert torch.autograd.gradcheck(lambda values: loss(values, labels), (logits,))


def test_soft_and_smoothed_labels_count_by_their_shares():
    logits, labels = batch()
    soft = torch.softmax(torch.randn(9, NUM_CLASSES, generator=torch.Generator().manual_seed(1)), 1)
    loss = LogitAdjustedLoss(torch.tensor(COUNTS))
    assert loss(logits, soft).item() == pytest.approx(reference(logits, soft), rel=1e-6)
    smooth = 0.7 * torch.eye(NUM_CLASSES)[labels] + 0.3 / NUM_CLASSES
    smoothed = LogitAdjustedLoss(COUNTS, label_smoothing=0.3)
    expected = reference(logits, smooth)
    assert smoothed(logits, labels).item() == pytest.approx(expected, rel=1e-6)


def test_without_gradients_it_is_the_cross_entropy():
    logits, labels = batch()
    loss = LogitAdjustedLoss(COUNTS)
    with torch.no_grad():
        evaluated = loss({"logits": logits.detach()}, labels)
    assert evaluated.item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-12)
    assert abs(evaluated.item() - loss(logits, labels).item()) > 0.1


def test_unlabeled_images_are_left_out():
    logits, labels = batch()
    some = labels.clone()
    some[::2] = -100
    loss = LogitAdjustedLoss(COUNTS)
    expected = reference(logits[1::2], torch.eye(NUM_CLASSES)[labels[1::2]])
    assert loss(logits, some).item() == pytest.approx(expected, rel=1e-12)
    nothing = loss(logits, torch.full_like(labels, -100))
    assert nothing.item() == 0.0 and nothing.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, labels = batch()
    half = (20 * logits.detach()).to(dtype).requires_grad_()
    loss = LogitAdjustedLoss([10**6, 1, 0, 10])(half, labels)
    assert loss.dtype == torch.float32
    expected = reference(half.double(), torch.eye(NUM_CLASSES)[labels], [10**6, 1, 0, 10])
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, -1],), "class_counts must hold .*, none negative"),
        (([0, 0],), "not all 0"),
        (([math.nan, 1],), "class_counts"),
        (([[1, 2]],), "class_counts"),
        (([1, 2], -1.0), "tau must be finite and not negative, got -1"),
        (([1, 2], math.inf), "tau"),
        (([1, 2], 1.0, 1.5), "label_smoothing must be in"),
    ],
)
def test_bad_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LogitAdjustedLoss(*arguments)


def test_counts_of_other_classes_are_refused():
    logits, labels = batch()
    with pytest.raises(ValueError, match=r"class_counts must have one number .* 4 of them, got 3"):
        LogitAdjustedLoss([1, 2, 3])(logits, labels)


def test_labels_are_counted_without_images():
    assert label_counts(Unequal(), NUM_CLASSES).tolist() == [20, 6, 6, 0]
    with pytest.raises(ValueError, match=r"'targets' lie in \[0, 2\], but a model of 2 classes"):
        label_counts(Unequal(), 2)
    with pytest.raises(ValueError, match=r"labels of a list cannot be read.*as class_counts"):
        label_counts([], NUM_CLASSES)


def test_images_without_a_class_are_not_counted():
    rows = [{"labels": label} for label in (-100, 2, 0, -100, 2)]
    assert label_counts(rows, NUM_CLASSES).tolist() == [1, 0, 2, 0]
    with pytest.raises(ValueError, match=r"lie in \[-1, 2\], but a model of 4 classes"):
        label_counts([*rows, {"labels": -1}], NUM_CLASSES)


# ---- in training ----


def gradients(cls, build, tmp_path, dataset, loss, **fields):
    kind = TrainingArguments if cls is Trainer else None
    recorder = GradientRecorder()
    args = config(tmp_path, **({"cls": kind} if kind else {}), max_steps=1, **fields)
    trainer = cls(
        build(), args, train_dataset=dataset, compute_loss_func=loss, callbacks=[recorder]
    )
    trainer.train()
    return recorder.steps[0], trainer


@pytest.mark.parametrize("build", [vit, beit])
@pytest.mark.parametrize("cls", [Trainer, CLCETrainer])
def test_accumulated_gradients_are_those_of_one_batch(tmp_path, cls, build):
    dataset = Unequal(8)
    loss = LogitAdjustedLoss(label_counts(Unequal(), NUM_CLASSES))
    own = {} if cls is Trainer else {"contrastive_weight": 0.0}
    (whole, _), (parts, _) = (
        gradients(
            *(cls, build, tmp_path, dataset, loss),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size,
            max_grad_norm=0.0,
            **own,
        )
        for size in (8, 2)
    )
    assert largest_relative_difference(parts, whole) < 1e-5
    model = build().train()
    logits = model(dataset.pixel_values).logits
    adjusted = logits + torch.tensor([20, 6, 6, 0.5]).log()
    F.cross_entropy(adjusted, torch.tensor(dataset.targets)).backward()
    by_hand = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert largest_relative_difference(whole, by_hand) < 1e-5


@pytest.mark.parametrize(
    "fields",
    [
        {"cached_mini_batch_size": 3},
        {"activation_checkpointing": True},
        pytest.param(
            {"torch_compile": True, "torch_compile_backend": "eager"}, marks=pytest.mark.slow
        ),
        {"bf16": True},
        {"cached_mini_batch_size": 2, "contrastive_weight": 0.0},
    ],
    ids=str,
)
def test_it_adjusts_in_training_alone_in_every_mode(tmp_path, fields):
    """`eval_loss` is stock cross-entropy of the same weights; `ce_loss` is the adjusted one."""
    loss, images = LogitAdjustedLoss(COUNTS, tau=2.0), Images(8)
    args = config(tmp_path, max_steps=1, learning_rate=0.0, **fields)
    trainer = CLCETrainer(
        vit(), args, train_dataset=images, eval_dataset=images, compute_loss_func=loss
    )
    trainer.train()
    plain = Trainer(vit(), config(tmp_path, TrainingArguments), eval_dataset=images)
    tolerance = 1e-2 if "bf16" in fields else 1e-6
    evaluated = trainer.evaluate()["eval_loss"]
    assert evaluated == pytest.approx(plain.evaluate()["eval_loss"], rel=tolerance)
    with torch.no_grad():
        logits = vit()(images.pixel_values).logits
    expected = reference(logits, torch.eye(NUM_CLASSES)[images.targets], tau=2.0)
    name = "loss" if fields.get("contrastive_weight") == 0.0 else "ce_loss"
    assert logged(trainer, name)[0] == pytest.approx(expected, rel=10 * tolerance)
    assert abs(expected - evaluated) > 0.1


def test_mixed_images_are_counted_as_images(tmp_path):
    loss, dataset = LogitAdjustedLoss(COUNTS), SoftImages(16)
    own = {"contrastive_weight": 0.0, "max_grad_norm": 0.0}
    _, trainer = gradients(
        *(CLCETrainer, vit, tmp_path, dataset, loss), gradient_accumulation_steps=2, **own
    )
    soft = torch.stack([row["labels"] for row in (dataset[i] for i in range(16))])
    expected = reference(vit()(dataset.pixel_values).logits, soft)
    assert logged(trainer, "loss")[0] == pytest.approx(expected, rel=1e-5)
