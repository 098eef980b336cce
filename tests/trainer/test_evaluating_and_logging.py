"""What evaluation reports, and what the log holds."""

import logging

import numpy as np
import pytest
import torch
from support.tiny import Images, beit, config, logged, vit
from support.training import train
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import (
    Trainer,
    TrainingArguments,
    ViTForImageClassification,
)

from clce_hf import CLCETrainer, label_aware_contrastive_loss


def test_terms_are_logged_as_means_over_the_interval(tmp_path):
    kinds = {"gradient_accumulation_steps": 2, "max_steps": 4, "contrastive_weight": 0.9}
    fine = train(CLCETrainer, vit(), config(tmp_path, logging_steps=1, **kinds))
    coarse = train(CLCETrainer, vit(), config(tmp_path, logging_steps=4, **kinds))
    for name in ("loss", "ce_loss", "contrastive_loss", "positives_per_anchor"):
        assert np.mean(logged(fine, name)) == pytest.approx(logged(coarse, name)[0], rel=1e-5)
    for loss, ce, contrastive in zip(
        *(logged(fine, name) for name in ("loss", "ce_loss", "contrastive_loss")), strict=True
    ):
        assert loss == pytest.approx(0.1 * ce + 0.9 * contrastive, rel=1e-5)


def test_positives_per_anchor_are_counted(tmp_path):
    grouped = train(CLCETrainer, vit(), config(tmp_path, samples_per_class=4, memory_size=0))
    assert logged(grouped, "positives_per_anchor") == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("build", [vit, beit])
def test_evaluation_loss_is_the_cross_entropy_of_all_images(tmp_path, build, batch_size):
    model, images = build(), Images(29)
    args = config(tmp_path, per_device_eval_batch_size=batch_size)
    metrics = CLCETrainer(model, args, eval_dataset=images).evaluate()
    with torch.no_grad():
        logits = model.eval()(images.pixel_values).logits
    expected = F.cross_entropy(logits, torch.tensor(images.targets))
    assert metrics["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    stock = Trainer(model, config(tmp_path, TrainingArguments), eval_dataset=images).evaluate()
    assert metrics["eval_loss"] == pytest.approx(stock["eval_loss"], rel=1e-5)
    assert ("eval_contrastive_loss" in metrics) == (batch_size > 1)


class Stream(IterableDataset):
    """The same images, without a length."""

    def __init__(self, images):
        self.images = images

    def __iter__(self):
        yield from (self.images[i] for i in range(len(self.images)))


def test_a_stream_is_evaluated_as_the_data_set_that_it_streams(tmp_path):
    model, images = vit(), Images(29)
    args = config(tmp_path, per_device_eval_batch_size=8)
    metrics = CLCETrainer(model, args).evaluate(images)
    streamed = CLCETrainer(model, args).evaluate(Stream(images))
    for name in ("eval_loss", "eval_contrastive_loss"):
        assert streamed[name] == pytest.approx(metrics[name], rel=1e-5)


def test_a_stream_is_trained_on(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path), train_dataset=Stream(Images(64)))
    trainer.train()
    assert len(logged(trainer, "contrastive_loss")) == 3


def test_evaluation_contrasts_each_batch(tmp_path):
    model, images = vit(), Images(16)
    hyperparameters = {"temperature": 0.2, "beta": 0.5, "variant": "in"}
    args = config(tmp_path, per_device_eval_batch_size=16, **hyperparameters)
    metrics = CLCETrainer(model, args, eval_dataset=images).evaluate(metric_key_prefix="test")
    with torch.no_grad():
        pooled = model.eval().vit(images.pixel_values).last_hidden_state[:, 0]
    labels = torch.tensor(images.targets)
    expected = label_aware_contrastive_loss(pooled, labels, **hyperparameters)
    assert metrics["test_contrastive_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_evaluation_weighs_batches_by_their_anchors(tmp_path):
    model, images = vit(), Images(15)
    batches = [[0, 0, 1, 1], [0, 0, 1, 2], [0, 1, 2, 3], [3, 3, 3]]
    images.targets = [label for batch in batches for label in batch]
    hyperparameters = {"temperature": 0.2, "beta": 0.5, "variant": "in"}
    args = config(tmp_path, per_device_eval_batch_size=4, **hyperparameters)
    metrics = CLCETrainer(model, args, eval_dataset=images).evaluate()
    with torch.no_grad():
        pooled = model.eval().vit(images.pixel_values).last_hidden_state[:, 0]
    losses, anchors = [], []
    for embeddings, labels in zip(pooled.split(4), batches, strict=True):
        targets = torch.tensor(labels)
        loss = label_aware_contrastive_loss(embeddings, targets, **hyperparameters)
        losses.append(loss.item())
        anchors.append(sum(labels.count(label) > 1 for label in labels))
    assert anchors == [4, 2, 0, 3]
    expected = np.average(losses, weights=anchors)
    assert metrics["eval_contrastive_loss"] == pytest.approx(expected, rel=1e-5)


class TupleViT(ViTForImageClassification):
    """Returns a tuple, its loss first where it is given labels, as older models do."""

    def forward(self, pixel_values=None, labels=None):
        return super().forward(pixel_values=pixel_values, labels=labels).to_tuple()


@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize("returns_tuple", [False, True])
def test_predictions_are_the_plain_logits(tmp_path, projection_dim, returns_tuple):
    model, images = vit(), Images(12)
    if returns_tuple:
        model.__class__ = TupleViT
    seen = {}

    def accuracy(prediction):
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        }

    trainer = CLCETrainer(
        model,
        config(tmp_path, projection_dim=projection_dim),
        train_dataset=images,
        eval_dataset=images,
        compute_metrics=accuracy,
    )
    trainer.train()
    metrics = trainer.evaluate()
    with torch.no_grad():
        logits = model.eval()(images.pixel_values)[0].numpy()
    np.testing.assert_allclose(seen["predictions"], logits, rtol=1e-5, atol=1e-6)
    assert seen["labels"].tolist() == images.targets
    assert metrics["eval_accuracy"] == (logits.argmax(-1) == np.array(images.targets)).mean()
    np.testing.assert_allclose(trainer.predict(images).predictions, seen["predictions"])


def test_prediction_without_labels(tmp_path):
    images = Images(6)
    unlabeled = [{"pixel_values": image} for image in images.pixel_values]
    output = CLCETrainer(vit(), config(tmp_path)).predict(unlabeled)
    assert output.predictions.shape == (6, 4)
    assert output.label_ids is None
    assert "test_loss" not in output.metrics


def test_preprocess_logits_for_metrics(tmp_path):
    trainer = CLCETrainer(
        vit(),
        config(tmp_path),
        eval_dataset=Images(12),
        compute_metrics=lambda prediction: {"shape": prediction.predictions.shape[0]},
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    assert trainer.evaluate()["eval_shape"] == 12
    assert trainer.predict(Images(12)).predictions.shape == (12,)


def test_most_images_without_positives_are_warned_of_once(tmp_path, caplog):
    lonely = Images(64, num_classes=64)
    args = config(tmp_path, max_steps=8, memory_size=0)
    CLCETrainer(vit(num_labels=64), args, train_dataset=lonely).train()
    warnings = [
        record.message for record in caplog.records if "samples_per_class" in record.message
    ]
    assert len(warnings) == 1
    assert warnings[0].startswith("100% of the images")
    caplog.clear()
    CLCETrainer(vit(), config(tmp_path, max_steps=8), train_dataset=Images()).train()
    assert "samples_per_class" not in caplog.text


@pytest.mark.parametrize(
    ("memory_size", "steps", "warned"),
    [(8, 6, False), (8, 7, True), (16, 8, False), (16, 9, True), (1000, 16, False), (0, 5, True)],
)
def test_missing_positives_are_told_once_the_memory_is_full(
    tmp_path, caplog, memory_size, steps, warned
):
    args = config(tmp_path, per_device_train_batch_size=4, memory_size=memory_size, max_steps=steps)
    train_on = Images(64, num_classes=64)
    with caplog.at_level(logging.WARNING, logger="clce_hf"):
        CLCETrainer(vit(num_labels=64), args, train_dataset=train_on).train()
    told = [record for record in caplog.records if record.name == "clce_hf.training.meters"]
    assert len(told) == warned
    for record in told:
        assert "100% of the images" in record.message and "Raise memory_size" in record.message
