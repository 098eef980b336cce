"""Mixup and CutMix: the batches, and training on them."""

import pytest
import torch
import torch.nn.functional as F
from support.tiny import (
    NUM_CLASSES,
    PAPER,
    GradientRecorder,
    Images,
    SoftImages,
    StopAt,
    beit,
    config,
    largest_relative_difference,
    logged,
    vit,
)
from transformers import Trainer, TrainerCallback

from clce_hf import CLCETrainer, GroupByLabelSampler, label_aware_contrastive_loss
from clce_hf.data.mixing import MixingCollator, with_one_hot_labels

BOTH = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}


class OneHotImages(Images):
    """Training images as the collator wants them."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {**row, "labels": torch.eye(NUM_CLASSES)[row["labels"]]}


# ---- batches ----


def rows_of(labels, num_classes):
    """Images of one number each, two to the power of their index, with one-hot labels."""
    one_hot = F.one_hot(torch.tensor(labels), num_classes).float()
    return [
        {"pixel_values": torch.full((1, 8, 8), 2.0**i), "labels": label}
        for i, label in enumerate(one_hot)
    ]


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, BOTH], ids=str)
def test_images_and_labels_are_mixed_alike(alphas):
    torch.manual_seed(0)
    collate = MixingCollator(**alphas)
    for _ in range(20):
        batch = collate(rows_of(list(range(6)), 6))
        assert batch["labels"].shape == (6, 6)
        # With a class for each image, the label says of which images how much is in it.
        mean = batch["labels"] @ 2.0 ** torch.arange(6.0)
        torch.testing.assert_close(batch["pixel_values"].mean((1, 2, 3)), mean)
        torch.testing.assert_close(batch["labels"].sum(1), torch.ones(6))
        torch.testing.assert_close(batch["labels"].sum(0), torch.ones(6))


def test_each_kind_is_drawn_where_both_are_asked_for():
    torch.manual_seed(0)
    collate = MixingCollator(**BOTH)
    kinds = []
    for _ in range(60):
        pixels = collate(rows_of(list(range(6)), 6))["pixel_values"]
        # mixup leaves an image of one color one, CutMix sets a patch into it.
        kinds.append(bool((pixels == pixels[:, :, :1, :1]).all()))
    assert 15 < sum(kinds) < 45


def test_grouped_batches_mix_a_class_with_itself_no_more_than_chance():
    labels = torch.arange(8).repeat_interleave(32)
    sampler = GroupByLabelSampler(labels, samples_per_class=4, batch_size=32, seed=0)
    torch.manual_seed(0)
    collate = MixingCollator(mixup_alpha=1.0)
    unmixed = total = 0
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for batch in torch.tensor(list(sampler)).split(32):
            rows = [
                {"pixel_values": torch.zeros(3, 2, 2), "labels": F.one_hot(labels[i], 8).float()}
                for i in batch
            ]
            unmixed += int((collate(rows)["labels"].amax(1) > 0.99999).sum())
            total += len(batch)
    # Each of the 31 others is as likely to be mixed in, and 3 of them are of its class.
    assert total == 20 * 256
    assert unmixed / total == pytest.approx(3 / 31, abs=0.02)


def test_class_ids_are_not_mixed():
    rows = [{"pixel_values": torch.full((3, 2, 2), i), "labels": i} for i in range(5)]
    state = torch.get_rng_state()
    batch = MixingCollator(**BOTH)(rows)
    assert batch["labels"].tolist() == [0, 1, 2, 3, 4]
    assert batch["pixel_values"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(torch.get_rng_state(), state)
    assert "labels" not in MixingCollator(**BOTH)([{"pixel_values": torch.zeros(3, 2, 2)}])


def test_labels_become_one_hot():
    transform = with_one_hot_labels(lambda rows: {"labels": [2, 0], "pixel_values": [7, 8]}, 3)
    rows = transform({})
    assert rows["pixel_values"] == [7, 8]
    assert torch.stack(rows["labels"]).tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ({}, "mixup_alpha and cutmix_alpha are 0"),
        ({"mixup_alpha": -0.1}, "mixup_alpha must be finite and not negative, got -0.1"),
        ({"cutmix_alpha": float("inf")}, "cutmix_alpha must be finite and not negative, got inf"),
        ({"cutmix_alpha": float("nan")}, "cutmix_alpha must be finite and not negative, got nan"),
    ],
)
def test_alphas_out_of_range(alphas, message):
    with pytest.raises(ValueError, match=message):
        MixingCollator(**alphas)


# ---- the trainer ----


def gradients(tmp_path, build, dataset, collator=None, callbacks=(), **fields):
    recorder = GradientRecorder()
    args = config(tmp_path, max_grad_norm=0.0, **fields)
    trainer = CLCETrainer(
        build(),
        args,
        train_dataset=dataset,
        data_collator=collator,
        callbacks=[recorder, *callbacks],
    )
    trainer.train()
    return recorder.steps, trainer


@pytest.mark.parametrize("build", [vit, beit])
@pytest.mark.parametrize("size", [1, 3])
def test_mini_batches_of_mixed_images_train_as_whole_batches_do(tmp_path, build, size):
    fields = {"gradient_accumulation_steps": 2, "samples_per_class": 2, "max_steps": 3}
    runs = []
    for cached in (None, size):
        steps, trainer = gradients(
            tmp_path,
            build,
            OneHotImages(),
            MixingCollator(**BOTH),
            cached_mini_batch_size=cached,
            adam_epsilon=1e-6,
            **fields,
        )
        runs.append((steps, trainer))
    (plain, plain_trainer), (cached, cached_trainer) = runs
    for ours, theirs in zip(cached, plain, strict=True):
        assert largest_relative_difference(ours, theirs) < 1e-5
    for name in ("ce_loss", "contrastive_loss", "positives_per_anchor"):
        expected = pytest.approx(logged(plain_trainer, name), rel=1e-5)
        assert logged(cached_trainer, name) == expected
    assert all(value != round(value) for value in logged(plain_trainer, "positives_per_anchor"))


@pytest.mark.parametrize("build", [vit, beit])
@pytest.mark.parametrize("sizes", [(8, 1), (4, 2), (3, 3)])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_gradients_are_those_of_the_written_out_loss(tmp_path, build, sizes, smoothing):
    size, accumulation = sizes
    dataset, weight = SoftImages(8), 0.6
    [ours], trainer = gradients(
        tmp_path,
        build,
        dataset,
        max_steps=1,
        contrastive_weight=weight,
        **PAPER,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulation,
        train_sampling_strategy="sequential",
        label_smoothing_factor=smoothing,
    )
    model = build().train()
    labels = torch.stack([dataset[i]["labels"] for i in range(8)])
    pooled = []
    model.classifier.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    logits = model(dataset.pixel_values).logits
    chunks = zip(pooled[0].split(size), labels.split(size), strict=True)
    contrastive = torch.stack([label_aware_contrastive_loss(e, y) for e, y in chunks]).mean()
    smoothed = (1 - smoothing) * labels + smoothing / NUM_CLASSES
    cross_entropy = -(smoothed * logits.log_softmax(1)).sum(1).mean()
    ((1 - weight) * cross_entropy + weight * contrastive).backward()
    reference = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert largest_relative_difference(ours, reference) < 1e-5
    assert logged(trainer, "ce_loss") == [pytest.approx(cross_entropy.item(), rel=1e-5)]


def test_one_hot_labels_train_as_class_ids_do(tmp_path):
    fields = {"gradient_accumulation_steps": 2, "label_smoothing_factor": 0.1}
    soft, soft_trainer = gradients(tmp_path, vit, OneHotImages(), **fields)
    hard, hard_trainer = gradients(tmp_path, vit, Images(), **fields)
    for ours, theirs in zip(soft, hard, strict=True):
        assert largest_relative_difference(ours, theirs) < 1e-5
    for name in ("loss", "ce_loss", "contrastive_loss", "positives_per_anchor"):
        assert logged(soft_trainer, name) == pytest.approx(logged(hard_trainer, name), rel=1e-5)


def test_compute_loss_func_sees_soft_labels_and_counts_images(tmp_path):
    seen = []

    def summed(outputs, labels, num_items_in_batch=None):
        seen.append((tuple(labels.shape), int(num_items_in_batch)))
        return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    args = config(tmp_path, gradient_accumulation_steps=2, max_steps=2)
    own = CLCETrainer(vit(), args, train_dataset=SoftImages(), compute_loss_func=summed)
    own.train()
    plain = CLCETrainer(vit(), args, train_dataset=SoftImages())
    plain.train()
    assert seen == [((8, NUM_CLASSES), 16)] * 4
    assert logged(own, "ce_loss") == pytest.approx(logged(plain, "ce_loss"), rel=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_in_the_middle_of_training_is_not_mixed(tmp_path, workers):
    """Stock Trainer evaluates each model that training evaluated to the same loss."""
    images, stock = Images(29, seed=1), []

    class Beside(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            plain = Trainer(model, config(tmp_path / "stock"), eval_dataset=images)
            stock.append(plain.evaluate()["eval_loss"])

    kinds = []

    class Recording(CLCETrainer):
        def compute_loss(self, model, inputs, *others, **named):
            kinds.append((model.training, inputs["labels"].dtype))
            return super().compute_loss(model, inputs, *others, **named)

    args = config(
        tmp_path,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        dataloader_num_workers=workers,
        dataloader_persistent_workers=workers > 0,
    )
    trainer = Recording(
        vit(),
        args,
        train_dataset=OneHotImages(64),
        eval_dataset=images,
        data_collator=MixingCollator(**BOTH),
        callbacks=[Beside()],
    )
    trainer.train()
    assert logged(trainer, "eval_loss") == pytest.approx(stock, rel=1e-6)
    assert len(stock) == 3
    assert set(kinds) == {(True, torch.float32), (False, torch.int64)}


def test_a_run_resumed_after_an_epoch_mixes_as_the_uninterrupted_one(tmp_path):
    """Within an epoch Trainer takes up the generator too late for the first batches."""

    def run(folder, *callbacks, resume=None):
        trainer = CLCETrainer(
            vit(hidden_dropout_prob=0.2),
            config(folder, max_steps=8, save_strategy="steps", save_steps=1, samples_per_class=2),
            train_dataset=OneHotImages(32),
            data_collator=MixingCollator(**BOTH),
            callbacks=[*callbacks],
        )
        if resume:
            torch.manual_seed(1)  # the state in the checkpoint must win over this
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path / "whole")
    run(tmp_path / "cut", StopAt(4))
    resumed = run(tmp_path / "cut", resume=str(tmp_path / "cut" / "checkpoint-4"))
    assert logged(resumed, "positives_per_anchor") == logged(whole, "positives_per_anchor")
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[n]) for n, value in resumed.model.state_dict().items())


def test_evaluation_on_mixed_images_is_refused(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path), eval_dataset=SoftImages())
    with pytest.raises(ValueError, match=r"in evaluation.*mix the images of training alone"):
        trainer.evaluate()


def test_labels_for_other_classes_are_refused(tmp_path):
    trainer = CLCETrainer(vit(num_labels=5), config(tmp_path), train_dataset=SoftImages())
    with pytest.raises(ValueError, match=r"of shape \(8, 4\) for 8 images of 5 classes"):
        trainer.train()
