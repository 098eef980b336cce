"""Training with a memory of past embeddings, held against the loss written out by hand."""

import pytest
import torch
from safetensors.torch import load_file
from support.by_hand import ByHand, Recorder
from support.resuming import memory_file
from support.scale_cases import Case, differences
from support.scale_cases import train as train_case
from support.tiny import (
    NUM_CLASSES,
    PAPER,
    Images,
    SoftImages,
    config,
    largest_relative_difference,
    logged,
    vit,
)
from support.training import assert_same_weights, train
from torch.nn import functional as F
from transformers import Trainer, TrainingArguments

from clce_hf import CLCETrainer, label_aware_contrastive_loss


def recorded(folder, data, recorder=None, **fields):
    recorder = recorder or Recorder()
    trainer = CLCETrainer(
        vit(),
        config(folder, max_grad_norm=0.0, **fields),
        train_dataset=data,
        data_collator=recorder.collate,
        callbacks=[recorder],
    )
    trainer.train()
    return trainer, recorder


def assert_is_by_hand(trainer, recorder):
    """Compare the gradients of every step; micro-batches are taken as they came."""
    past, batches = [], iter(recorder.batches)
    for weights, gradients in recorder.steps:
        micro_batches = [next(batches) for _ in range(trainer.args.gradient_accumulation_steps)]
        expected = ByHand(weights, trainer.args).gradients(micro_batches, past)
        assert largest_relative_difference(gradients, expected) < 1e-5


def mixed_now_and_then(labels, index):
    """Probabilities in two batches, class ids in two, and so on."""
    one_hot = F.one_hot(labels, NUM_CLASSES).float()
    return 0.7 * one_hot + 0.3 * one_hot.roll(1, 0) if index % 4 < 2 else labels


def ids_first(labels, index):
    """Class ids until the memory is full and wrapped, then probabilities."""
    return labels if index < 3 else mixed_now_and_then(labels, 0)


def partly_left_out(labels, index):
    return labels.masked_fill(torch.arange(len(labels)) % 3 == index % 3, -100)


@pytest.mark.parametrize(
    "fields",
    [
        {"memory_size": 8, "max_steps": 2},
        {"memory_size": 20},  # the ring wraps within a batch
        {"memory_size": 20, "variant": "out", "beta": 0.0, "temperature": 0.2},
        {"memory_size": 5},  # of each batch, the last five
        {"memory_size": 1000, "contrastive_weight": 1.0},
        {"memory_size": 20, "gradient_accumulation_steps": 2},
        {"memory_size": 20, "projection_dim": 6},
        {"memory_size": 20, "cached_mini_batch_size": 3},
    ],
    ids=str,
)
def test_every_step_is_the_written_out_loss(tmp_path, fields):
    assert_is_by_hand(*recorded(tmp_path, Images(48), **{"max_steps": 5, **fields}))


@pytest.mark.parametrize("relabel", [mixed_now_and_then, ids_first, partly_left_out])
def test_labels_of_every_kind_are_remembered(tmp_path, relabel):
    fields = {"memory_size": 20, "max_steps": 6}
    trainer, recorder = recorded(tmp_path, Images(48), Recorder(relabel), **fields)
    assert_is_by_hand(trainer, recorder)


def test_soft_labels_are_remembered(tmp_path):
    assert_is_by_hand(*recorded(tmp_path, SoftImages(48), memory_size=20, max_steps=5))


def test_images_without_label_do_not_go_with_probabilities(tmp_path):
    def relabel(labels, index):
        return mixed_now_and_then(labels, 0) if index == 0 else partly_left_out(labels, 0)

    with pytest.raises(ValueError, match=r"-100 for some images.*memory_size=0"):
        recorded(tmp_path, Images(), Recorder(relabel), memory_size=20)

    # The other way round they leave the memory.
    def reverse(labels, index):
        return partly_left_out(labels, 0) if index < 2 else mixed_now_and_then(labels, 0)

    fields = {"memory_size": 12, "max_steps": 4, "save_strategy": "steps", "save_steps": 3}
    recorded(tmp_path, Images(48), Recorder(reverse), **fields)
    held = load_file(memory_file(tmp_path / "checkpoint-3"))
    assert held["targets"].shape == (12, NUM_CLASSES)


def test_positives_in_the_memory_are_counted(tmp_path):
    trainer, recorder = recorded(tmp_path, Images(48), memory_size=20, max_steps=5)
    past = []
    for batch, found in zip(
        recorder.batches, logged(trainer, "positives_per_anchor"), strict=False
    ):
        own = batch["labels"].tolist()
        counts = [(own + past[-20:]).count(label) - 1 for label in own]
        assert found == pytest.approx(sum(counts) / len(counts))
        past += own


@pytest.mark.parametrize("size", [1, 3])
def test_cached_mini_batches_fill_it_once(tmp_path, size):
    sgd = {"memory_size": 20, "optim": "sgd"}
    case = Case(missing=3, arguments={**sgd, "gradient_accumulation_steps": 2}, compared_step=4)
    cached = train_case(case.with_arguments(cached_mini_batch_size=size), tmp_path, 1)
    found = differences(cached, train_case(case, tmp_path, 1))
    assert found["gradient"] < 1e-5
    assert found["log"] < 1e-5
    saved = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1, "memory_size": 100}
    recorded(tmp_path, Images(), cached_mini_batch_size=size, **saved)
    held = load_file(memory_file(tmp_path / "checkpoint-1"))
    assert held["embeddings"].shape == (8, 32)


@pytest.mark.parametrize(
    "fields", [{"bf16": True}, {"projection_dim": 6}, {"bf16": True, "projection_dim": 6}], ids=str
)
def test_what_is_contrasted_is_stored_in_float32(tmp_path, fields):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2, "memory_size": 20}
    recorded(tmp_path, Images(), **fields, **saved)
    held = load_file(memory_file(tmp_path / "checkpoint-2"))
    assert held["embeddings"].dtype == torch.float32
    assert held["embeddings"].shape == (16, fields.get("projection_dim", 32))
    torch.testing.assert_close(held["embeddings"].norm(dim=1), torch.ones(16))


def test_a_second_training_starts_with_an_empty_memory(tmp_path):
    trainer, recorder = recorded(tmp_path, Images(), memory_size=20)
    assert_is_by_hand(trainer, recorder)
    recorder.batches.clear()
    recorder.steps.clear()
    trainer.train()
    assert len(recorder.steps) == 3
    assert_is_by_hand(trainer, recorder)


def test_outside_training_the_loss_is_that_of_the_batch(tmp_path):
    fields = {**PAPER, "memory_size": 20, "contrastive_weight": 1.0}
    trainer, recorder = recorded(tmp_path, Images(), **fields)
    batch, model = recorder.batches[0], trainer.model.train()
    pooled = model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    for _ in range(2):
        loss = trainer.compute_loss(model, dict(batch))
        torch.testing.assert_close(loss, label_aware_contrastive_loss(pooled, batch["labels"]))


def test_evaluation_leaves_the_memory_alone(tmp_path):
    def run(eval_strategy, memory_size=20):
        args = config(tmp_path, memory_size=memory_size, eval_strategy=eval_strategy, eval_steps=1)
        return train(CLCETrainer, vit(), args, eval_dataset=Images(16, seed=1))

    evaluated = run("steps")
    assert len(logged(evaluated, "eval_contrastive_loss")) == 3
    plain = run("no")
    assert logged(evaluated, "loss") == logged(plain, "loss")
    assert_same_weights(evaluated.model, plain.model)
    # Nor does it look at it.
    again = CLCETrainer(evaluated.model, evaluated.args, eval_dataset=Images(16, seed=1))
    assert (
        again.evaluate()["eval_contrastive_loss"] == logged(evaluated, "eval_contrastive_loss")[-1]
    )


def test_without_contrast_it_is_stock_trainer(tmp_path, caplog):
    saved = {"save_strategy": "steps", "save_steps": 2}
    args = config(tmp_path / "ours", contrastive_weight=0.0, memory_size=20, **saved)
    ours = train(CLCETrainer, vit(), args)
    stock = train(Trainer, vit(), config(tmp_path / "stock", TrainingArguments))
    assert_same_weights(ours.model, stock.model)
    assert not list(tmp_path.rglob("embedding_memory*"))
    again = CLCETrainer(vit(), args, train_dataset=Images())
    again.train(resume_from_checkpoint=str(tmp_path / "ours" / "checkpoint-2"))
    assert_same_weights(again.model, stock.model)
    assert "memory" not in caplog.text


def test_a_batch_of_one_class_finds_negatives_in_the_memory(tmp_path):
    one_class = {"samples_per_class": 8, "temperature": 0.1, "memory_size": 0}
    with pytest.raises(ValueError, match=r"images of one class.*or set memory_size"):
        recorded(tmp_path, Images(), **one_class)
    trainer, recorder = recorded(tmp_path, Images(), **{**one_class, "memory_size": 20})
    assert all(len(batch["labels"].unique()) == 1 for batch in recorder.batches)
    assert_is_by_hand(trainer, recorder)
