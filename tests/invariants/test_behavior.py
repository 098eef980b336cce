"""What Trainer's training promises, stock Trainer beside CLCETrainer in every test."""

import math
from pathlib import Path

import pytest
import torch
from support.beside_stock import ADDED, TRAINERS, Stream, both, checkpoints, entries, make, of_class
from support.tiny import Images, StopAt, logged, vit
from torch import nn
from torch.utils.data import SequentialSampler
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    ViTForImageClassification,
    get_constant_schedule,
)


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


def test_a_stream_trains_for_so_many_steps_and_asks_how_many(tmp_path):
    def summary(trainer):
        trainer.train()
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
    def summary(trainer):
        trainer.train()
        return trainer._train_batch_size, trainer.state.global_step

    size, _ = both(tmp_path, summary, build=of_class(OutOfMemory), auto_find_batch_size=True)
    assert size == 4


def test_optimizers_passed_in_are_used(tmp_path):
    for cls in TRAINERS:
        model = vit()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
        schedule = get_constant_schedule(optimizer)
        trainer = make(cls, tmp_path, build=lambda: model, optimizers=(optimizer, schedule))  # noqa: B023
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
        {"accelerator_config": {"split_batches": True}},
        {"accelerator_config": {"dispatch_batches": True, "even_batches": False}},
        {"accelerator_config": {"use_seedable_sampler": False}},
        {"gradient_accumulation_steps": 2, "ddp_find_unused_parameters": True},
        {"logging_steps": 0.5, "eval_strategy": "steps", "eval_steps": 0.25},
        {"use_liger_kernel": True},
        {"enable_jit_checkpoint": True},
        {"train": Images(5), "dataloader_drop_last": True},
        {"torch_compile": True, "torch_compile_backend": "aot_eager"},
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

    stock, ours = map(summary, TRAINERS)
    assert ours == stock


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


def test_a_model_is_made_anew_for_each_run(tmp_path):
    def summary(trainer):
        first = trainer.model
        trainer.train()
        return trainer.model is first, trainer.get_num_trainable_parameters()

    both(tmp_path, summary, model_init=lambda: vit())


# ---- by hand, and in classes of one's own ----


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


def test_callbacks_come_and_go(tmp_path):
    def summary(trainer):
        popped = trainer.pop_callback(PrinterCallback)
        trainer.add_callback(ProgressCallback)
        trainer.add_callback(popped)
        trainer.remove_callback(ProgressCallback)
        return [type(callback).__name__ for callback in trainer.callback_handler.callbacks]

    both(tmp_path, summary)


class Given(TrainerCallback):
    """Records what events are given, by name."""

    def __init__(self):
        self.seen = {}

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def record(args, state, control, **given):
            self.seen[name] = sorted(key for key, value in given.items() if value is not None)

        return record


def test_callbacks_are_given_the_same(tmp_path):
    def summary(trainer):
        trainer.add_callback(given := Given())
        trainer.train()
        trainer.predict(Images(4))
        return given.seen

    seen = both(tmp_path, summary, eval_strategy="epoch", save_strategy="epoch")
    assert "train_dataloader" in seen["on_step_end"] and "metrics" in seen["on_evaluate"]


# ---- resuming otherwise than it began ----


@pytest.mark.parametrize(
    "fields",
    [
        {"num_train_epochs": 4},
        {"per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 3},
        {"save_only_model": True, "num_train_epochs": 3},
        {"auto_find_batch_size": True, "num_train_epochs": 3},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_a_run_resumes_with_other_arguments(tmp_path, fields):
    saved = {"save_strategy": "steps", "save_steps": 2}
    first = {name: value for name, value in fields.items() if name == "save_only_model"}

    def summary(trainer):
        trainer.train()
        resumed = make(type(trainer), trainer.args.output_dir, **{**saved, **fields})
        resumed.train(resume_from_checkpoint=True)
        return resumed.state.global_step, resumed.state.epoch, entries(resumed)

    both(tmp_path, summary, **saved, **first)


@pytest.mark.parametrize("resume", ["checkpoint-7", True])
def test_there_is_nothing_to_resume_from(tmp_path, resume):
    def summary(trainer):
        folder = trainer.args.output_dir
        with pytest.raises(ValueError, match=r"Can't find|No valid checkpoint") as error:
            trainer.train(f"{folder}/{resume}" if isinstance(resume, str) else resume)
        return str(error.value).replace(folder, "")

    both(tmp_path, summary)


def test_the_state_of_callbacks_is_restored(tmp_path):
    fields = {
        **{"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2},
        **{"load_best_model_at_end": True, "max_steps": 2},
    }

    def summary(trainer):
        trainer.train()
        other = make(
            type(trainer),
            trainer.args.output_dir,
            callbacks=[EarlyStoppingCallback()],
            restore_callback_states_from_checkpoint=True,
            **fields,
        )
        other.train(resume_from_checkpoint=True)
        return [
            callback.early_stopping_patience
            for callback in other.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
        ]

    callbacks = [EarlyStoppingCallback(early_stopping_patience=5)]
    assert both(tmp_path, summary, callbacks=callbacks, **fields) == [5]
