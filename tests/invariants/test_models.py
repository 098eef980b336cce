"""Models of all forms, stock Trainer beside CLCETrainer."""

import copy
from pathlib import Path

import pytest
import torch
from support.beside_stock import ADDED, both, of_class
from support.tiny import NUM_CLASSES, Images, vit
from torch import nn
from transformers import TrainerCallback, ViTForImageClassification


class Tuples(ViTForImageClassification):
    def forward(self, pixel_values=None, labels=None):
        return super().forward(pixel_values=pixel_values, labels=labels).to_tuple()


class RequiresLabels(ViTForImageClassification):
    def forward(self, pixel_values, labels):
        return super().forward(pixel_values=pixel_values, labels=labels)


class RequiresLabelsForTuples(ViTForImageClassification):
    def forward(self, pixel_values, labels):
        return super().forward(pixel_values=pixel_values, labels=labels).to_tuple()


class BareLogits(ViTForImageClassification):
    def forward(self, pixel_values, labels=None):
        outputs = super().forward(pixel_values=pixel_values, labels=labels)
        return outputs.logits if labels is None else (outputs.loss, outputs.logits)


class OtherKeys(ViTForImageClassification):
    def forward(self, pixel_values, labels=None):
        outputs = super().forward(pixel_values=pixel_values, labels=labels)
        return {"loss": outputs.loss, "scores": outputs.logits}


FORMS = [Tuples, RequiresLabels, RequiresLabelsForTuples, BareLogits, OtherKeys]


@pytest.mark.parametrize("model", FORMS)
def test_models_of_other_forms(tmp_path, model):
    def summary(trainer):
        trainer.train()
        output = trainer.predict(Images(6))
        metrics = trainer.evaluate()
        return output.predictions.shape, output.label_ids.tolist(), metrics.keys() - ADDED

    shape, _, names = both(tmp_path, summary, build=of_class(model))
    assert shape == (6, NUM_CLASSES) and "eval_loss" in names


def test_a_module_that_is_no_pretrained_model(tmp_path):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3 * 16 * 16, 8)
            self.head = nn.Linear(8, NUM_CLASSES)

        def forward(self, pixel_values, labels=None):
            logits = self.head(self.body(pixel_values.flatten(1)).relu())
            if labels is None:
                return {"logits": logits}
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    def summary(trainer):
        trainer.train()
        trainer.save_model()
        files = sorted(f.name for f in Path(trainer.args.output_dir).iterdir())
        return trainer.predict(Images(6)).predictions.shape, files

    shape, _ = both(tmp_path, summary, build=Plain)
    assert shape == (6, NUM_CLASSES)


def test_a_wrapper_of_a_model(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = vit()
            self.config = self.model.config

        def forward(self, pixel_values, labels=None):
            return self.model(pixel_values=pixel_values, labels=labels)

    def summary(trainer):
        trainer.train()
        return trainer.predict(Images(6)).predictions.shape, trainer.evaluate().keys() - ADDED

    both(tmp_path, summary, build=Wrapper)


class Average(TrainerCallback):
    """Keeps a copy of the model, as a moving average of weights does."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model(pixel_values=torch.zeros(2, 3, 16, 16))
        self.copy = copy.deepcopy(model)


def test_the_model_is_used_and_copied_by_others(tmp_path):
    def summary(trainer):
        average = Average()
        trainer.add_callback(average)
        trainer.train()
        return average.copy(pixel_values=torch.zeros(2, 3, 16, 16)).logits.shape

    assert both(tmp_path, summary) == (2, NUM_CLASSES)
