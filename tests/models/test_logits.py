"""What is trained are the logits, whatever else a model returns and in what order."""

import pytest
import torch
from support.beside_stock import both
from support.tiny import NUM_CLASSES, Images, config, logged
from torch import nn
from torch.nn import functional as F

from clce_hf import CLCETrainer
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
        if self.form == "scaled":
            logits = 2 * logits
        loss = None if labels is None else F.cross_entropy(logits, labels)
        if self.form == "dict":
            return {"loss": loss, "features": features, "prediction": logits}
        return (features, logits) if loss is None else (loss, features, logits)


def trained(folder, model, **fields):
    args = config(folder, learning_rate=1e-2, max_steps=60, **fields)
    trainer = CLCETrainer(model, args, train_dataset=Images(), eval_dataset=Images())
    trainer.train()
    return trainer


@pytest.mark.parametrize("form", ["tuple", "dict"])
@pytest.mark.parametrize(
    "fields", [{}, {"classification_layer": "head"}, {"cached_mini_batch_size": 3}], ids=str
)
def test_features_that_come_first_are_not_taken_for_logits(tmp_path, form, fields):
    trainer = trained(tmp_path, Returning(form), **fields)
    model, images = trainer.model.eval(), Images()
    with torch.no_grad():
        logits = model.head(model.body(images.pixel_values.flatten(1)).relu())
    labels = torch.tensor(images.targets)
    assert (logits.argmax(1) == labels).all()
    loss = F.cross_entropy(logits, labels).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, rel=1e-4)
    layer = fields.get("classification_layer")
    assert torch.equal(infer(model, images, 32, layer).logits, logits)


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_cross_entropy_alone_is_that_of_stock_trainer(tmp_path, form):
    def summary(trainer):
        trainer.train()
        weights = [parameter.tolist() for parameter in trainer.model.parameters()]
        return logged(trainer, "loss"), trainer.evaluate()["eval_loss"], weights

    both(tmp_path, summary, build=lambda: Returning(form), contrastive_weight=0.0)


def test_logits_that_are_not_what_the_named_layer_returns_are_told_by_their_shape(tmp_path):
    with pytest.raises(ValueError, match=r"not the model's logits.*classification_layer"):
        trained(tmp_path / "searched", Returning("scaled"))
    trainer = trained(tmp_path, Returning("scaled"), classification_layer="head")
    assert logged(trainer, "ce_loss")[-1] < 0.1


@pytest.mark.parametrize(
    "fields", [{}, {"classification_layer": "head"}, {"contrastive_weight": 0.0}], ids=str
)
def test_features_as_many_as_classes_are_refused(tmp_path, fields):
    with pytest.raises(ValueError, match=r"logits, of shape \(n, 4\), cannot be told.*'logits'"):
        trained(tmp_path, Returning("tuple", width=NUM_CLASSES), **fields)
