"""What Transformers promises of Trainer, with stock Trainer beside CLCETrainer in every test."""

import math
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from tiny import NUM_CLASSES, Images, StopAt, config, logged, vit
from torch import nn
from torch.utils.data import IterableDataset
from transformers import (
    DefaultDataCollator,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    ViTForImageClassification,
    get_constant_schedule,
)

from clce_hf import CLCETrainer

TRAINERS = [Trainer, CLCETrainer]
ADDED = {
    *("ce_loss", "contrastive_loss", "positives_per_anchor"),
    *("eval_contrastive_loss", "test_contrastive_loss"),
}


def make(cls, folder, *, model=None, train=None, held_out=None, **fields):
    named = {
        key: fields.pop(key)
        for key in (
            *("callbacks", "compute_metrics", "data_collator", "optimizers", "model_init"),
            *("preprocess_logits_for_metrics", "optimizer_cls_and_kwargs"),
        )
        if key in fields
    }
    return cls(
        None if "model_init" in named else model or vit(),
        config(folder, **{"max_steps": -1, "num_train_epochs": 2, **fields}),
        train_dataset=Images(24) if train is None else train,
        eval_dataset=Images(12, seed=1) if held_out is None else held_out,
        **named,
    )


def both(folder, summary, **fields):
    """Return what `summary` says of the stock trainer, having seen the same of ours."""
    stock, ours = (summary(make(cls, folder / cls.__name__, **fields)) for cls in TRAINERS)
    assert ours == stock
    return stock


def trained(trainer):
    trainer.train()
    return trainer


def accuracy(prediction):
    return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean().item()}


def checkpoints(trainer):
    return sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))


def entries(trainer):
    """Step and names of each entry of the log, without the names that CLCETrainer adds."""
    return [(entry["step"], sorted(set(entry) - ADDED)) for entry in trainer.state.log_history]


class Events(TrainerCallback):
    """Records every event in order."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def record(args, state, control, **kwargs):
            self.seen.append((name, state.global_step))

        return record


# ---- training ----


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"gradient_accumulation_steps": 2},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"},
        {"eval_strategy": "steps", "eval_steps": 2, "eval_on_start": True, "max_steps": 5},
        {"num_train_epochs": 1.5, "logging_first_step": True, "logging_steps": 3},
    ],
)
def test_events_and_logs_come_in_the_same_order(tmp_path, fields):
    def summary(trainer):
        trainer.add_callback(events := Events())
        trainer.train()
        assert all(math.isfinite(loss) for loss in logged(trainer, "loss"))
        state = trainer.state
        return events.seen, entries(trainer), state.global_step, state.epoch, checkpoints(trainer)

    seen, *_, steps, _, _ = both(tmp_path, summary, **fields)
    assert seen[0] == ("on_init_end", 0) or seen[0][0] == "on_train_begin"
    assert [name for name, _ in seen].count("on_step_end") == steps


def test_the_callbacks_are_those_of_trainer(tmp_path):
    both(tmp_path, lambda t: [type(c).__name__ for c in t.callback_handler.callbacks])


@pytest.mark.parametrize(
    "fields",
    [
        {"eval_strategy": "no"},
        {"eval_strategy": "steps", "eval_steps": 2},
        {"eval_strategy": "epoch", "eval_delay": 1},
        {"eval_strategy": "epoch", "eval_delay": 2},
    ],
)
def test_evaluation_comes_when_asked_for(tmp_path, fields):
    def summary(trainer):
        trainer.train()
        return [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]

    steps = both(tmp_path, summary, **fields)
    assert (steps == []) == (fields["eval_strategy"] == "no")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"save_strategy": "epoch"}, ["checkpoint-3", "checkpoint-6"]),
        ({"save_strategy": "epoch", "save_total_limit": 1}, ["checkpoint-6"]),
        ({"save_strategy": "steps", "save_steps": 4}, ["checkpoint-4", "checkpoint-6"]),
        ({"save_strategy": "best", "metric_for_best_model": "accuracy"}, ["checkpoint-3"]),
    ],
)
def test_checkpoints_are_kept_as_asked_for(tmp_path, fields, expected):
    def summary(trainer):
        trainer.train()
        folders = Path(trainer.args.output_dir).glob("checkpoint-*")
        return checkpoints(trainer), [sorted(f.name for f in p.iterdir()) for p in sorted(folders)]

    found, files = both(
        tmp_path,
        summary,
        compute_metrics=lambda _: {"accuracy": 0.5},
        eval_strategy="epoch",
        **fields,
    )
    assert found == expected
    assert all("model.safetensors" in names for names in files)


def test_a_checkpoint_may_hold_the_model_alone(tmp_path):
    def summary(trainer):
        trainer.train()
        return sorted(f.name for f in Path(trainer.args.output_dir, "checkpoint-6").iterdir())

    files = both(tmp_path, summary, save_strategy="epoch", save_only_model=True)
    assert "optimizer.pt" not in files


def test_the_best_model_is_loaded_and_training_stops_early(tmp_path):
    def summary(trainer):
        trainer.train()
        state = trainer.state
        return Path(state.best_model_checkpoint).name, state.best_metric, state.global_step

    best = both(
        tmp_path,
        summary,
        num_train_epochs=9,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        compute_metrics=lambda _: {"accuracy": 0.5},
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    assert best == ("checkpoint-3", 0.5, 9)


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize("ignore_data_skip", [False, True])
def test_a_run_resumes_in_the_middle_of_an_epoch(tmp_path, stop, ignore_data_skip):
    def summary(trainer):
        cls, folder = type(trainer), trainer.args.output_dir
        trainer.add_callback(StopAt(stop))
        trainer.train()
        resumed = make(
            cls, folder, save_strategy="steps", save_steps=1, ignore_data_skip=ignore_data_skip
        )
        seen = Events()
        resumed.add_callback(seen)
        resumed.train(resume_from_checkpoint=True)
        return seen.seen, resumed.state.global_step, resumed.state.epoch, entries(resumed)

    both(tmp_path, summary, save_strategy="steps", save_steps=1)


class Stream(IterableDataset):
    def __init__(self, n=24):
        self.images = Images(n)

    def __iter__(self):
        yield from (self.images[i] for i in range(len(self.images)))


def test_a_stream_trains_for_so_many_steps_and_asks_how_many(tmp_path):
    def summary(trainer):
        trained(trainer)
        return trainer.state.global_step, entries(trainer)

    steps, _ = both(tmp_path, summary, train=Stream(), max_steps=5)
    assert steps == 5
    for cls in TRAINERS:
        with pytest.raises(ValueError, match="max_steps"):
            make(cls, tmp_path, train=Stream())


class OutOfMemory(ViTForImageClassification):
    def forward(self, pixel_values=None, labels=None):
        if self.training and len(pixel_values) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(pixel_values=pixel_values, labels=labels)


def test_the_batch_size_is_found(tmp_path):
    for cls in TRAINERS:
        model = vit()
        model.__class__ = OutOfMemory
        trainer = make(cls, tmp_path, model=model, auto_find_batch_size=True)
        trainer.train()
        assert trainer._train_batch_size == 4


def test_optimizers_passed_in_are_used(tmp_path):
    for cls in TRAINERS:
        model = vit()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
        trainer = make(
            cls, tmp_path, model=model, optimizers=(optimizer, get_constant_schedule(optimizer))
        )
        trainer.train()
        assert trainer.optimizer.optimizer is optimizer
        assert set(logged(trainer, "learning_rate")) == {0.125}


def test_a_class_of_optimizer_is_made_with_its_arguments(tmp_path):
    def summary(trainer):
        trainer.train()
        return type(trainer.optimizer.optimizer).__name__, trainer.optimizer.defaults["momentum"]

    made = both(
        tmp_path, summary, optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 1, "momentum": 0.5})
    )
    assert made == ("SGD", 0.5)


@pytest.mark.parametrize(
    ("optim", "schedule"),
    [
        ("adamw_torch", "linear"),
        ("adafactor", "cosine"),
        ("sgd", "constant_with_warmup"),
        ("adagrad", "polynomial"),
        ("rmsprop", "inverse_sqrt"),
    ],
)
def test_optimizers_and_schedules_have_their_rates(tmp_path, optim, schedule):
    def summary(trainer):
        trainer.train()
        rates = logged(trainer, "learning_rate")
        return type(trainer.optimizer.optimizer).__name__, rates, trainer.get_learning_rates()

    both(
        tmp_path, summary, optim=optim, lr_scheduler_type=schedule, warmup_steps=2, weight_decay=0.1
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"optim": "galore_adamw", "optim_target_modules": ["query"]},
        {"optim": "adamw_torch", "optim_target_modules": ["query"]},
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "sequential"},
        {"eval_strategy": "epoch", "held_out": False},
        {"neftune_noise_alpha": 5.0},
        {"torch_empty_cache_steps": 2},
        {"dataloader_drop_last": True, "per_device_train_batch_size": 7},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {"include_num_input_tokens_seen": "all"},
        {"logging_nan_inf_filter": False},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": 0.01},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"full_determinism": True},
        {"seed": 7, "data_seed": 8},
        {"skip_memory_metrics": False},
        {"eval_accumulation_steps": 1, "eval_strategy": "epoch"},
        {"prediction_loss_only": True, "eval_strategy": "epoch"},
        {"restore_callback_states_from_checkpoint": True},
        {"average_tokens_across_devices": False},
    ],
    ids=lambda fields: ",".join(fields),
)
@pytest.mark.filterwarnings("ignore")
def test_an_argument_does_or_refuses_the_same(tmp_path, fields):
    def summary(cls):
        try:
            trainer = make(cls, tmp_path / cls.__name__, **fields)
            trainer.train()
        except Exception as error:
            return type(error).__name__, str(error)
        finally:
            torch.use_deterministic_algorithms(False)
        return trainer.state.global_step, trainer.state.epoch, entries(trainer)

    assert summary(CLCETrainer) == summary(Trainer)


def test_the_order_of_the_images_is_that_of_the_seed(tmp_path):
    class Recorded(Images):
        def __init__(self):
            super().__init__(24)
            self.seen = []

        def __getitem__(self, index):
            self.seen.append(index)
            return super().__getitem__(index)

    orders = []
    for cls in TRAINERS:
        train = Recorded()
        make(cls, tmp_path, train=train, data_seed=3).train()
        orders.append(train.seen)
    assert orders[0] == orders[1] and sorted(orders[0][:24]) == list(range(24))


# ---- what goes into the model ----


@pytest.mark.parametrize("remove", [True, False])
def test_columns_that_the_model_does_not_know(tmp_path, remove):
    images = Images(24)
    rows = datasets.Dataset.from_dict(
        {
            "pixel_values": images.pixel_values.tolist(),
            "labels": images.targets,
            "weight": [1.0] * 24,
        }
    )
    seen = []

    def collate(batch):
        seen.append(sorted(batch[0]))
        return DefaultDataCollator()(
            [{k: row[k] for k in ("pixel_values", "labels")} for row in batch]
        )

    def summary(trainer):
        seen.clear()
        trainer.train()
        return list(seen)

    columns = both(
        tmp_path, summary, train=rows, data_collator=collate, remove_unused_columns=remove
    )
    assert ("weight" in columns[0]) is not remove


def test_a_collator_may_return_more(tmp_path):
    def collate(rows):
        return {**DefaultDataCollator()(rows), "ids": torch.arange(len(rows))}

    def summary(trainer):
        try:
            trainer.train()
        except TypeError as error:
            return str(error)
        return trainer.evaluate().keys() - ADDED

    both(tmp_path, summary, data_collator=collate)


class OtherNames(ViTForImageClassification):
    """Takes its labels under another name."""

    def forward(self, pixel_values=None, target=None, **kwargs):
        return super().forward(pixel_values=pixel_values, labels=target)


def test_labels_under_another_name(tmp_path):
    def collate(rows):
        batch = DefaultDataCollator()(rows)
        batch["target"] = batch.pop("labels")
        return batch

    def summary(trainer):
        trainer.train()
        output = trainer.predict(Images(6))
        assert trainer.evaluate()["eval_loss"] > 0
        return output.label_ids.tolist(), sorted(set(output.metrics) - ADDED)

    for cls in TRAINERS:
        model = vit()
        model.__class__ = OtherNames
        trainer = make(
            cls,
            tmp_path,
            model=model,
            data_collator=collate,
            label_names=["target"],
            remove_unused_columns=False,
        )
        labels, names = summary(trainer)
        assert labels == Images(6).targets and "test_loss" in names


class Tuples(ViTForImageClassification):
    def forward(self, pixel_values=None, labels=None):
        return super().forward(pixel_values=pixel_values, labels=labels).to_tuple()


def test_models_that_return_tuples(tmp_path):
    def summary(cls):
        model = vit()
        model.__class__ = Tuples
        trainer = trained(make(cls, tmp_path, model=model))
        output = trainer.predict(Images(6))
        return output.predictions.shape, output.label_ids.tolist(), set(output.metrics) - ADDED

    assert summary(CLCETrainer) == summary(Trainer)


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

    stock = summary(make(Trainer, tmp_path / "stock", model=Plain()))
    fields = {"embedding_module": "head"}
    assert summary(make(CLCETrainer, tmp_path / "ours", model=Plain(), **fields)) == stock


# ---- evaluation ----


def test_prediction(tmp_path):
    def summary(trainer):
        output = trainer.predict(Images(10))
        names = set(output.metrics) - ADDED
        evaluated = trainer.evaluate(metric_key_prefix="held_out")
        evaluated.pop("held_out_contrastive_loss", None)
        return output.predictions.tolist(), output.label_ids.tolist(), names, evaluated.keys()

    predictions, *_ = both(tmp_path, summary, compute_metrics=accuracy)
    assert np.shape(predictions) == (10, NUM_CLASSES)


def test_several_data_sets_are_evaluated_by_name(tmp_path):
    held_out = {"a": Images(6), "b": Images(10, seed=2)}

    def summary(trainer):
        trainer.train()
        names = {
            name
            for entry in trainer.state.log_history
            for name in entry
            if name.startswith("eval_") and "contrastive" not in name
        }
        metrics = trainer.evaluate()
        return names, {name for name in metrics if "contrastive" not in name}

    names, _ = both(
        tmp_path, summary, held_out=held_out, eval_strategy="epoch", compute_metrics=accuracy
    )
    assert {"eval_a_loss", "eval_b_accuracy"} <= names


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"eval_do_concat_batches": False},
        {"include_for_metrics": ["inputs", "loss"]},
        {"preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1)},
        {"eval_accumulation_steps": 1},
    ],
    ids=str,
)
def test_metrics_are_computed_from_the_same(tmp_path, fields):
    def plain(value):
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return None if value is None else np.asarray(value).round(5).tolist()

    def summary(trainer):
        seen = []

        def compute_metrics(prediction):
            parts = (prediction.predictions, prediction.label_ids, prediction.inputs)
            seen.append(plain([*parts, prediction.losses]))
            return {"size": len(prediction.label_ids)}

        trainer.compute_metrics = compute_metrics
        metrics = trainer.evaluate()
        return seen, metrics["eval_size"], round(metrics["eval_loss"], 5)

    both(tmp_path, summary, per_device_eval_batch_size=5, **fields)


def test_metrics_in_batches(tmp_path):
    seen = []

    def compute_metrics(prediction, compute_result):
        seen.append((tuple(prediction.predictions.shape), compute_result))
        return {"batches": len(seen)} if compute_result else {}

    def summary(trainer):
        seen.clear()
        return trainer.evaluate()["eval_batches"], list(seen)

    batches, _ = both(
        tmp_path,
        summary,
        compute_metrics=compute_metrics,
        batch_eval_metrics=True,
        per_device_eval_batch_size=5,
    )
    assert batches == 3


def test_one_step_by_hand(tmp_path):
    def summary(trainer):
        batch = next(iter(trainer.get_eval_dataloader()))
        loss, logits, labels = trainer.prediction_step(trainer.model, dict(batch), False)
        only, *rest = trainer.prediction_step(trainer.model, dict(batch), True)
        return round(loss.item(), 5), logits.shape, labels.tolist(), round(only.item(), 5), rest

    both(tmp_path, summary)


def test_a_model_is_made_anew_for_each_run(tmp_path):
    def summary(trainer):
        first = trainer.model
        trainer.train()
        return trainer.model is first, trainer.get_num_trainable_parameters()

    both(tmp_path, summary, model_init=lambda: vit())
