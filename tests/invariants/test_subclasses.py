"""Steps by hand and subclasses, stock Trainer beside CLCETrainer in every test."""

import torch
from support.beside_stock import ADDED, both
from support.tiny import Images, logged
from torch import nn
from torch.utils.data import SequentialSampler


def test_evaluation_comes_before_training_and_training_twice(tmp_path):
    def summary(trainer):
        before = trainer.evaluate().keys() - ADDED
        first = trainer.train()
        second = trainer.train()
        is_bare = trainer.model_wrapped is trainer.model
        return before, first.metrics.keys(), second.global_step, trainer.state.total_flos, is_bare

    both(tmp_path, summary)


def test_a_step_of_training_by_hand(tmp_path):
    def summary(trainer):
        images = Images(8)
        batch = {"pixel_values": images.pixel_values, "labels": torch.tensor(images.targets)}
        loss = trainer.training_step(trainer.model, batch, 8)
        with_gradient = sum(p.grad is not None for p in trainer.model.parameters())
        return loss.shape, loss.requires_grad, with_gradient, sorted(batch)

    both(tmp_path, summary)


class Loaders:
    """Several data loaders one after another, without a data set."""

    def __init__(self, *loaders):
        self.loaders = loaders

    def __len__(self):
        return sum(map(len, self.loaders))

    def __iter__(self):
        for loader in self.loaders:
            yield from loader


def test_custom_data_loaders(tmp_path):
    def subclass(cls):
        class Own(cls):
            def get_train_dataloader(self):
                return Loaders(super().get_train_dataloader(), super().get_train_dataloader())

            def get_eval_dataloader(self, eval_dataset=None):
                return Loaders(super().get_eval_dataloader(eval_dataset))

        return Own

    def summary(trainer):
        trainer.train()
        return trainer.state.global_step, trainer.evaluate().keys() - ADDED

    steps, _ = both(tmp_path, summary, subclass)
    assert steps == 12


def test_overridden_methods_that_call_those_of_trainer(tmp_path):
    def subclass(cls):
        class Own(cls):
            calls: list[str]

            def compute_loss(self, model, inputs, return_outputs=False, **named):
                self.calls.append("compute_loss")
                loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **named)
                return (2 * loss, outputs) if return_outputs else 2 * loss

            def training_step(self, *args, **named):
                self.calls.append("training_step")
                return super().training_step(*args, **named)

            def log(self, logs, *args):
                self.calls.append("log")
                super().log({**logs, "mine": 1.0}, *args)

            def _get_train_sampler(self, dataset=None):
                self.calls.append("sampler")
                return SequentialSampler(self.train_dataset)

        return Own

    def summary(trainer):
        trainer.calls = []
        trainer.train()
        return trainer.calls, trainer.predict(Images(6)).predictions.shape, logged(trainer, "mine")

    both(tmp_path, summary, subclass, gradient_accumulation_steps=2)


def test_a_custom_loss(tmp_path):
    def subclass(cls):
        class Own(cls):
            def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
                labels = inputs.pop("labels")
                outputs = model(**inputs)
                loss = nn.functional.cross_entropy(outputs.logits, labels)
                return (loss, outputs) if return_outputs else loss

        return Own

    def summary(trainer):
        trainer.train()
        return logged(trainer, "loss"), trainer.evaluate()["eval_loss"]

    both(tmp_path, summary, subclass)
