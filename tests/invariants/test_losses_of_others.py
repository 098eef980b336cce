"""Losses, batches and searches of a script's own, stock Trainer beside CLCETrainer."""

import json
import warnings

import optuna
import pytest
import torch
import torch.nn.functional as F
from support.beside_stock import TRAINERS, accuracy, make
from support.tiny import GradientRecorder, Images, largest_relative_difference, logged, vit
from torch import nn
from torch.utils.data import default_collate
from transformers import ConvNextConfig, ConvNextForImageClassification
from transformers.utils.notebook import NotebookProgressCallback

from clce_hf import CLCETrainer


def convnext():
    """A model that does not take `num_items_in_batch`: Trainer divides its loss itself."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
    return ConvNextForImageClassification(ConvNextConfig(**sizes, num_labels=4, patch_size=2))


def weighted(cls):
    """The class weights that every forum shows."""

    class Own(cls):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = F.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 2, 3, 4]))
            return (loss, outputs) if return_outputs else loss

    return Own


def penalized(cls):
    class Own(cls):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
            loss = loss + 0.1 * outputs.logits.square().mean()
            return (loss, outputs) if return_outputs else loss

    return Own


def of_old(cls):
    """Written when Trainer did not count the items of a step."""

    class Own(cls):
        def compute_loss(self, model, inputs, return_outputs=False, **named):
            return super().compute_loss(model, inputs, return_outputs=return_outputs)

    return Own


def of_tuples(cls):
    class Own(cls):
        def compute_loss(self, model, inputs, return_outputs=False, **named):
            images, labels = inputs
            outputs = model(images)
            loss = F.cross_entropy(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    return Own


class Pairs(Images):
    """Tuples, as torch's own collate function makes them."""

    def __getitem__(self, index):
        return self.pixel_values[index], self.targets[index]


def gradients(folder, subclass, **fields):
    """Gradients of each step and logged losses, of both trainers."""
    found = []
    for cls in TRAINERS:
        recorder = GradientRecorder()
        trainer = make(
            subclass(cls),
            folder / cls.__name__,
            callbacks=[recorder],
            max_grad_norm=0.0,
            contrastive_weight=0.0,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            **fields,
        )
        trainer.train()
        found.append((recorder.steps, logged(trainer, "loss")))
    return found


@pytest.mark.parametrize("subclass", [weighted, penalized, of_old, of_tuples])
@pytest.mark.parametrize("build", [vit, convnext])
def test_gradients_of_a_loss_of_ones_own_accumulate_as_in_stock(tmp_path, build, subclass):
    pairs = {}
    if subclass is of_tuples:
        pairs = {"train": Pairs(24), "held_out": Pairs(8), "data_collator": default_collate}
        pairs["remove_unused_columns"] = False
    (stock, stock_loss), (ours, our_loss) = gradients(tmp_path, subclass, build=build, **pairs)
    assert len(stock) == 6
    for theirs, mine in zip(stock, ours, strict=True):
        assert largest_relative_difference(mine, theirs) < 1e-6
    assert our_loss == pytest.approx(stock_loss, rel=1e-6)


class NamedFine(Images):
    def __getitem__(self, index):
        return {"pixel_values": self.pixel_values[index], "fine_label": self.targets[index]}


@pytest.mark.parametrize("build", [vit, convnext])
def test_ragged_accumulation_weights_every_image_alike(tmp_path, build):
    # 22 images make 11 batches of 2: the last step of an epoch has 3 of them, with 6 images. Stock
    # averages the means of batches where it does not count, of which the last may be smaller.
    fields = {"num_train_epochs": 1, "per_device_train_batch_size": 3, "max_grad_norm": 0.0}
    of_step = []
    for size, batch in ((22, 3), (22, 22)):
        recorder = GradientRecorder()
        named = {"label_names": ["fine_label"], "remove_unused_columns": False}
        trainer = make(
            CLCETrainer,
            tmp_path / str(batch),
            build=build,
            train=NamedFine(size),
            callbacks=[recorder],
            contrastive_weight=0.0,
            gradient_accumulation_steps=-(-size // batch),
            **{**fields, **named, "per_device_train_batch_size": batch},
        )
        trainer.train()
        of_step.append(recorder.steps[0])
    assert largest_relative_difference(*of_step) < 1e-5


@pytest.mark.parametrize("build", [vit, convnext])
def test_outputs_hold_the_loss(tmp_path, build):
    images = Images(8)
    batch = {"pixel_values": images.pixel_values, "labels": torch.tensor(images.targets)}
    for cls in TRAINERS:
        trainer = make(cls, tmp_path, build=build)
        loss, outputs = trainer.compute_loss(trainer.model.eval(), batch, return_outputs=True)
        assert outputs.loss is loss
        assert list(outputs) == ["loss", "logits"]
        assert torch.equal(outputs[0], loss)
        # In evaluation, with a gradient where it is not turned off.
        loss.backward()
        assert trainer.model.classifier.weight.grad is not None


class SomeUnlabeled(Images):
    """The images of the first two batches have no label."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {**row, "labels": -100 if index < 16 else row["labels"]}


def mean_cross_entropy(outputs, labels, num_items_in_batch=None):
    return F.cross_entropy(outputs.logits, labels)


@pytest.mark.parametrize("weight", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("loss", [None, mean_cross_entropy])
@pytest.mark.parametrize("build", [vit, convnext])
def test_a_batch_without_labels_trains_nothing_and_goes_on(tmp_path, build, loss, weight):
    recorder = GradientRecorder()
    trainer = make(
        CLCETrainer,
        tmp_path,
        build=build,
        train=SomeUnlabeled(24),
        callbacks=[recorder],
        compute_loss_func=loss,
        contrastive_weight=weight,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
    )
    trainer.train()
    *without, last = recorder.steps
    assert not any(gradient.any() for step in without for gradient in step.values())
    assert any(gradient.any() for gradient in last.values())
    assert logged(trainer, "loss")[:2] == [0.0, 0.0]


@pytest.mark.parametrize("cls", TRAINERS)
def test_the_default_objective_of_a_search_is_stocks(tmp_path, cls):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = []
    for metrics in (accuracy, None):
        trainer = make(
            cls,
            tmp_path,
            model_init=lambda: vit(),
            compute_metrics=metrics,
            max_steps=1,
            eval_strategy="steps",
            eval_steps=1,
        )
        best = trainer.hyperparameter_search(
            hp_space=lambda trial: {}, n_trials=1, backend="optuna", direction="maximize"
        )
        name = "eval_loss" if metrics is None else "eval_accuracy"
        objectives.append(best.objective)
        assert [best.objective] == logged(trainer, name)
    assert len(set(objectives)) == 2


def test_the_progress_table_of_a_notebook_has_stocks_columns(tmp_path):
    tables = []
    for cls in TRAINERS:
        notebook = NotebookProgressCallback()
        seen = []
        trainer = make(
            cls,
            tmp_path,
            callbacks=[notebook],
            compute_metrics=accuracy,
            eval_strategy="steps",
            eval_steps=2,
        )
        original = NotebookProgressCallback.on_train_end

        def keep(*args, seen=seen, notebook=notebook, original=original, **named):
            seen.append(notebook.training_tracker.inner_table[0])
            original(notebook, *args, **named)

        notebook.on_train_end = keep
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there is no notebook here
            trainer.train()
        tables.append(seen)
    assert tables[0] == [["Step", "Training Loss", "Validation Loss", "Accuracy"]]
    assert tables[1] == tables[0]


@pytest.mark.parametrize("build", [vit, convnext])
def test_the_config_says_what_stock_writes_into_it(tmp_path, build):
    saved = []
    for cls in TRAINERS:
        trainer = make(cls, tmp_path / cls.__name__, build=build, max_steps=1)
        trainer.train()
        trainer.save_model()
        saved.append(json.loads((tmp_path / cls.__name__ / "config.json").read_text()))
    assert saved[0]["problem_type"] == "single_label_classification"
    assert saved[1] == saved[0]


class TakesAll(nn.Module):
    """Computes its own loss from whatever a batch holds."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(768, 32), nn.Linear(32, 4)

    def forward(self, **batch):
        logits = self.head(self.body(batch["pixel_values"].flatten(1)))
        return {"loss": F.cross_entropy(logits, batch["labels"]), "logits": logits}


@pytest.mark.parametrize("cls", TRAINERS)
def test_a_forward_that_takes_the_whole_batch(tmp_path, cls):
    trainer = make(cls, tmp_path, build=TakesAll, remove_unused_columns=False)
    trainer.train()
    assert all(loss > 0 for loss in logged(trainer, "loss"))
    if cls is CLCETrainer:  # stock finds no labels in the signature, and takes the loss for logits
        assert trainer.predict(Images(6)).predictions.shape == (6, 4)


@pytest.mark.parametrize("with_schedule", [False, True])
def test_an_optimizer_of_ones_own_trains_the_projection_head(tmp_path, with_schedule):
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = None
    if with_schedule:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = make(
        CLCETrainer,
        tmp_path,
        build=lambda: model,
        optimizers=(optimizer, schedule),
        projection_dim=8,
        save_strategy="steps",
        save_steps=2,
    )
    before = trainer.projection_head.output.weight.clone()
    trainer.train()
    assert not torch.equal(trainer.projection_head.output.weight, before)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(optimizer.param_groups) == 1


class Plain(nn.Module):
    """A classifier that is no model of Transformers."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(768, 32), nn.Linear(32, 4)

    def forward(self, pixel_values, labels=None):
        logits = self.head(self.body(pixel_values.flatten(1)))
        if labels is None:
            return {"logits": logits}
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


@pytest.mark.parametrize(
    ("cls", "fields"),
    [(TRAINERS[0], {}), (CLCETrainer, {}), (CLCETrainer, {"projection_dim": 8})],
)
def test_a_module_of_ones_own_resumes_and_keeps_its_best(tmp_path, cls, fields):
    def trainer(**more):
        torch.manual_seed(0)
        return make(
            cls,
            tmp_path,
            build=Plain,
            eval_strategy="steps",
            eval_steps=2,
            save_strategy="steps",
            save_steps=2,
            load_best_model_at_end=True,
            **fields,
            **more,
        )

    whole = trainer()
    whole.train()
    assert whole.state.best_model_checkpoint is not None
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert logged(resumed, "loss") == logged(whole, "loss")


class LeavesNone(Plain):
    """Returns a tuple with None in the place of a loss, as the guides of Transformers show it."""

    def forward(self, pixel_values, labels=None):
        outputs = super().forward(pixel_values, labels)
        return outputs.get("loss"), outputs["logits"]


class Collects:
    """Collects the batches of a step by itself."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)], None


class Described(Images):
    """With metadata of its own under a name that data sets of the Hub use."""

    def __init__(self, n):
        super().__init__(n)
        self.info, self.split = {"python_class": "DermaMNIST", "n_channels": 3}, "train"


@pytest.mark.parametrize("cls", TRAINERS)
@pytest.mark.parametrize(
    ("subclass", "fields"),
    [
        (None, {"build": LeavesNone}),
        (Collects, {"gradient_accumulation_steps": 2}),
        (None, {"train": Described(24), "held_out": Described(8)}),
    ],
    ids=["None for a loss", "own batches", "own metadata"],
)
def test_what_else_stock_trains_and_evaluates(tmp_path, cls, subclass, fields):
    of_class = cls if subclass is None else type("Own", (subclass, cls), {})
    trainer = make(of_class, tmp_path, eval_strategy="epoch", **fields)
    trainer.train()
    assert len(logged(trainer, "eval_loss")) == 2
    assert trainer.predict(Images(6)).predictions.shape == (6, 4)
