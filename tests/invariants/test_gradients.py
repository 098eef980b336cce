"""Weights, gradients and accumulation, with stock Trainer and the written-out loss beside ours."""

import pytest
import torch
from support.tiny import (
    PAPER,
    GradientRecorder,
    Images,
    beit,
    config,
    largest_relative_difference,
    logged,
    vit,
)
from support.training import assert_same_weights, train
from torch.nn import functional as F
from transformers import (
    Trainer,
    TrainingArguments,
)

from clce_hf import CLCEConfig, CLCETrainer, label_aware_contrastive_loss

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}


def first_gradients(cls, model, args, dataset):
    recorder = GradientRecorder()
    cls(model, args, train_dataset=dataset, callbacks=[recorder]).train()
    return recorder.steps[0]


# ---- lambda = 0 ----


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("extra", [{}, {"bf16": True}, {"label_smoothing_factor": 0.1}])
def test_without_contrast_it_is_the_stock_trainer_bit_for_bit(tmp_path, accumulation, extra):
    extra = {**extra, "gradient_accumulation_steps": accumulation, "num_train_epochs": 2}
    runs = {}
    for cls, args in (
        (Trainer, config(tmp_path, TrainingArguments, max_steps=-1, **extra)),
        (CLCETrainer, config(tmp_path, max_steps=-1, contrastive_weight=0.0, **extra)),
    ):
        runs[cls] = train(cls, vit(**DROPOUT), args)
    assert_same_weights(runs[CLCETrainer].model, runs[Trainer].model)
    assert logged(runs[CLCETrainer], "loss") == logged(runs[Trainer], "loss")
    assert not logged(runs[CLCETrainer], "contrastive_loss")
    assert not any(module._forward_hooks for module in runs[CLCETrainer].model.modules())


# ---- gradient accumulation ----


@pytest.mark.parametrize("build", [vit, beit])
def test_cross_entropy_gradients_do_not_depend_on_accumulation(tmp_path, build):
    dataset = Images(8)
    gradients = [
        first_gradients(
            CLCETrainer,
            build(),
            config(
                tmp_path,
                max_steps=1,
                contrastive_weight=0.0,
                per_device_train_batch_size=8 // steps,
                gradient_accumulation_steps=steps,
            ),
            dataset,
        )
        for steps in (1, 2, 8)
    ]
    for other in gradients[1:]:
        assert largest_relative_difference(other, gradients[0]) < 1e-5
    stock = first_gradients(Trainer, vit(), config(tmp_path, TrainingArguments), dataset)
    if build is vit:
        assert largest_relative_difference(gradients[0], stock) == 0.0


def counting_nothing():
    """A model like timm's, for which Trainer does not count the labels of a step."""
    model = vit()
    model.accepts_loss_kwargs = False
    return model


class Targets(Images):
    """The same with its labels under another name."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {"pixel_values": row["pixel_values"], "target": row["labels"]}


@pytest.mark.parametrize(
    ("build", "label_name"),
    [(vit, "labels"), (beit, "labels"), (counting_nothing, "labels"), (vit, "target")],
)
@pytest.mark.parametrize("sizes", [(8, 1), (4, 2), (2, 4), (3, 3)])
def test_accumulated_gradients_are_those_of_the_written_out_loss(
    tmp_path, build, label_name, sizes
):
    size, steps = sizes
    dataset, weight = (Images if label_name == "labels" else Targets)(8), 0.6
    args = config(
        tmp_path,
        max_steps=1,
        contrastive_weight=weight,
        **PAPER,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=steps,
        train_sampling_strategy="sequential",
        label_names=[label_name],
    )
    ours = first_gradients(CLCETrainer, build(), args, dataset)

    model = build().train()
    labels = torch.tensor(dataset.targets)
    pooled = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    logits = model(dataset.pixel_values).logits
    chunks = zip(pooled[0].split(size), labels.split(size), strict=True)
    contrastive = torch.stack([label_aware_contrastive_loss(e, y) for e, y in chunks]).mean()
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * contrastive
    loss.backward()
    # Trainer clips in place before the callback sees the gradients.
    torch.nn.utils.clip_grad_norm_(model.parameters(), args.max_grad_norm)
    reference = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert largest_relative_difference(ours, reference) < 1e-5


def test_beit_takes_stock_steps_too_large_and_ours_right(tmp_path):
    dataset = Images(8)

    def norm(cls, size, steps, **own):
        args = config(
            tmp_path,
            TrainingArguments if cls is Trainer else CLCEConfig,
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_grad_norm=0.0,
            **own,
        )
        gradients = first_gradients(cls, beit(), args, dataset)
        return torch.cat([g.flatten() for g in gradients.values()]).norm().item()

    assert norm(Trainer, 2, 4) / norm(Trainer, 8, 1) == pytest.approx(4.0, rel=1e-3)
    own = {"contrastive_weight": 0.0}
    assert norm(CLCETrainer, 2, 4, **own) / norm(CLCETrainer, 8, 1, **own) == pytest.approx(
        1.0, rel=1e-4
    )
