"""What is trained are the logits, whatever else a model returns and in what order."""

import numpy as np
import pytest
import torch
from support.beside_stock import both
from support.tiny import NUM_CLASSES, Images, config, logged
from torch import nn
from torch.nn import functional as F
from transformers import EvalPrediction, PreTrainedConfig

from clce_hf import CLCETrainer
from clce_hf.evaluation.compute_accuracies import compute_accuracies
from clce_hf.evaluation.inference import infer


class Returning(nn.Module):
    """A model that is none of Transformers': it says itself what it returns."""

    def __init__(self, form, width=32):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(3 * 16 * 16, width)
        self.head = nn.Linear(width, NUM_CLASSES)
        self.form = form

    def forward(self, pixel_values, labels=None):
        features = self.body(pixel_values.flatten(1)).relu()
        logits = self.head(features)
        if self.form.startswith("scaled"):
            logits = 2 * logits
        loss = None if labels is None else F.cross_entropy(logits, labels)
        if self.form == "dict":
            return {"loss": loss, "features": features, "prediction": logits}
        if self.form == "scaled alone":
            return {"loss": loss, "logits": logits}
        if self.form == "logits first":
            features, logits = logits, features
        return (features, logits) if loss is None else (loss, features, logits)


def trained(folder, model, **fields):
    args = config(folder, learning_rate=1e-2, max_steps=60, **fields)
    trainer = CLCETrainer(model, args, train_dataset=Images(), eval_dataset=Images())
    trainer.train()
    return trainer


def logits_of_head(model):
    with torch.no_grad():
        return model.head(model.body(Images().pixel_values.flatten(1)).relu())


def loss_of(logits):
    return F.cross_entropy(logits, torch.tensor(Images().targets)).item()


@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize(
    "fields", [{}, {"beta": 0.0, "projection_dim": 8}, {"cached_mini_batch_size": 3}], ids=str
)
def test_features_that_come_first_are_not_taken_for_logits(tmp_path, form, fields):
    trainer = trained(tmp_path, Returning(form), **fields)
    model, logits = trainer.model, logits_of_head(trainer.model)
    assert (logits.argmax(1) == torch.tensor(Images().targets)).all()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss_of(logits), rel=1e-4)
    assert torch.equal(infer(model, Images(), 32).logits, logits)


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_cross_entropy_alone_is_that_of_stock_trainer(tmp_path, form):
    def build():
        model = Returning(form)
        model.config = PreTrainedConfig(num_labels=NUM_CLASSES)
        return model

    def summary(trainer):
        trainer.train()
        weights = [parameter.tolist() for parameter in trainer.model.parameters()]
        return logged(trainer, "loss"), trainer.evaluate()["eval_loss"], weights

    both(tmp_path, summary, build=build, contrastive_weight=0.0)


@pytest.mark.parametrize("form", ["tuple", "dict", "scaled"])
@pytest.mark.parametrize(
    "fields", [{"classification_layer": "head"}, {"contrastive_weight": 0.0}], ids=str
)
def test_features_that_may_be_the_logits_are_refused(tmp_path, form, fields):
    with pytest.raises(ValueError, match="return a dict with the key 'logits'"):
        trained(tmp_path, Returning(form), **fields)


def test_logits_that_are_not_what_the_named_layer_returns(tmp_path):
    with pytest.raises(ValueError, match=r"not the model's logits.*classification_layer"):
        trained(tmp_path / "searched", Returning("scaled"))
    trainer = trained(tmp_path, Returning("scaled alone"), classification_layer="head")
    assert logged(trainer, "ce_loss")[-1] < 0.1


@pytest.mark.parametrize("fields", [{}, {"contrastive_weight": 0.0}], ids=str)
def test_logits_that_come_first_are_taken_whatever_comes_after(tmp_path, fields):
    layer = {"classification_layer": "head"}
    for i, width in enumerate((32, NUM_CLASSES)):  # features as many as classes, too
        trainer = trained(tmp_path / str(i), Returning("logits first", width), **layer, **fields)
        expected = loss_of(logits_of_head(trainer.model))
        assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-4)


def test_what_a_named_module_returns_need_not_be_a_tensor(tmp_path):
    class Head(nn.Linear):
        def forward(self, features):
            return super().forward(features), None

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(3 * 16 * 16, 32), Head(32, NUM_CLASSES)

        def forward(self, pixel_values):
            return {"logits": self.head(self.body(pixel_values.flatten(1)).relu())[0]}

    trainer = trained(tmp_path, Model(), classification_layer="head")
    assert logged(trainer, "ce_loss")[-1] < 0.3


def test_accuracies_of_arrays_that_may_be_the_logits_are_refused():
    labels, features, logits = np.arange(4), np.eye(4, 32), np.eye(4)
    with pytest.raises(ValueError, match=r"\[4, 32\] columns.*preprocess_logits_for_metrics"):
        compute_accuracies(EvalPrediction((features, logits), labels))
    assert compute_accuracies(EvalPrediction((logits, logits), labels))["accuracy"] == 1.0
