"""The loss of a step of training, and its terms."""

import copy

import pytest
import torch
from support.tiny import Images, config, logged, vit
from support.training import assert_same_weights, train
from torch.nn import functional as F
from transformers import (
    Trainer,
    TrainingArguments,
    ViTForImageClassification,
)

from clce_hf import CLCETrainer, clce_loss


@pytest.mark.parametrize(("variant", "other"), [("in", "out"), ("out", "in")])
def test_compute_loss_by_hand_is_clce(tmp_path, variant, other):
    model = vit()
    trainer = CLCETrainer(
        model, config(tmp_path, temperature=0.2, beta=0.5, variant=variant, contrastive_weight=0.3)
    )
    dataset = Images(12)  # with two positives for each image: of one, both variants are the same
    batch = {"pixel_values": dataset.pixel_values, "labels": torch.tensor(dataset.targets)}
    model.train()
    loss, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True)
    pooled = model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    expected, of_other = (
        clce_loss(
            outputs.logits,
            pooled,
            batch["labels"],
            contrastive_weight=0.3,
            temperature=0.2,
            beta=0.5,
            variant=kind,
        )
        for kind in (variant, other)
    )
    torch.testing.assert_close(loss, expected)
    assert (expected - of_other).abs() > 1e-3
    assert outputs.hidden_states is None
    assert set(batch) == {"pixel_values", "labels"}


def test_compute_loss_func_replaces_the_cross_entropy(tmp_path):
    seen = []

    def doubled(outputs, labels, num_items_in_batch=None):
        seen.append(int(num_items_in_batch))
        return 2.0 * F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    ours = train(CLCETrainer, vit(), config(tmp_path), compute_loss_func=doubled)
    plain = train(CLCETrainer, vit(), config(tmp_path))
    assert logged(ours, "ce_loss")[0] == pytest.approx(2 * logged(plain, "ce_loss")[0], rel=1e-5)
    assert logged(ours, "contrastive_loss")[0] == logged(plain, "contrastive_loss")[0]
    assert seen == [8, 8, 8]


def test_label_smoothing_acts_on_the_cross_entropy(tmp_path):
    smooth = train(CLCETrainer, vit(), config(tmp_path, label_smoothing_factor=0.3))
    stock = train(Trainer, vit(), config(tmp_path, TrainingArguments, label_smoothing_factor=0.3))
    assert logged(smooth, "ce_loss")[0] == pytest.approx(logged(stock, "loss")[0], rel=1e-6)
    loss, ce, contrastive = (
        logged(smooth, name)[0] for name in ("loss", "ce_loss", "contrastive_loss")
    )
    assert loss == pytest.approx(0.1 * ce + 0.9 * contrastive, rel=1e-5)


def test_plain_training_arguments_get_the_papers_values(tmp_path):
    args = config(tmp_path, TrainingArguments)
    plain = train(CLCETrainer, vit(), args)
    paper = train(CLCETrainer, vit(), config(tmp_path))
    assert plain.args is args
    assert logged(plain, "loss") == logged(paper, "loss")
    assert_same_weights(plain.model, paper.model)


def test_the_contrastive_term_alone_moves_the_backbone(tmp_path):
    model = vit()
    before = copy.deepcopy(model.state_dict())
    train(CLCETrainer, model, config(tmp_path, contrastive_weight=1.0, weight_decay=0.0))
    after = model.state_dict()
    assert torch.equal(after["classifier.weight"], before["classifier.weight"])
    assert not torch.equal(
        after["vit.embeddings.patch_embeddings.projection.weight"],
        before["vit.embeddings.patch_embeddings.projection.weight"],
    )


class StaysInEvaluationMode(ViTForImageClassification):
    """As models do that keep the statistics of their batch normalization."""

    def train(self, mode=True):
        return super().train(False)


class RecordsGradients(CLCETrainer):
    """Evaluates without `torch.no_grad()`."""

    def prediction_step(self, model, inputs, *args, **named):
        with torch.enable_grad():
            loss, outputs = self.compute_loss(model, dict(inputs), return_outputs=True)
        return loss.detach(), outputs.logits.detach(), inputs["labels"]


@pytest.mark.parametrize("cls", [CLCETrainer, RecordsGradients])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"projection_dim": 8},
        {"cached_mini_batch_size": 3},
        {"projection_dim": 8, "cached_mini_batch_size": 3},
    ],
    ids=str,
)
def test_a_model_that_stays_in_evaluation_mode_trains_both_terms(tmp_path, cls, fields):
    stays = vit()
    stays.__class__ = StaysInEvaluationMode
    args = config(tmp_path, eval_strategy="steps", eval_steps=1, **fields)
    plain, ours = (train(cls, m, args, eval_dataset=Images(8)) for m in (vit(), stays))
    names = "loss", "ce_loss", "contrastive_loss", "positives_per_anchor"
    for name in (*names, "eval_loss", "eval_contrastive_loss"):
        assert len(logged(ours, name)) == 3
        assert logged(ours, name) == logged(plain, name)
    assert_same_weights(ours.model, plain.model)


class AdversarialPass(CLCETrainer):
    """Adds the loss of a pass in evaluation mode, as that of adversarial images is computed."""

    def compute_loss(self, model, inputs, *args, **named):
        loss = super().compute_loss(model, dict(inputs), *args, **named)
        model.eval()
        self.added = super().compute_loss(model, dict(inputs))
        model.train()
        return loss + self.added


def test_a_pass_that_a_step_makes_in_evaluation_mode_contrasts_nothing(tmp_path):
    args = config(tmp_path, max_steps=1, learning_rate=0.0)
    ours, plain = (train(cls, vit(), args) for cls in (AdversarialPass, CLCETrainer))
    assert logged(ours, "positives_per_anchor") == logged(plain, "positives_per_anchor")
    assert ours.added.item() == pytest.approx(logged(plain, "ce_loss")[0], rel=1e-5)
