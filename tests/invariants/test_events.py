"""Events, logs and callbacks of a training, stock Trainer beside CLCETrainer in every test."""

import math

import pytest
from support.beside_stock import (
    TRAINERS,
    Events,
    Stream,
    both,
    checkpoints,
    entries,
    make,
)
from support.tiny import Images, logged
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
)


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


def test_a_stream_trains_for_so_many_steps_and_asks_how_many(tmp_path):
    def summary(trainer):
        trainer.train()
        return trainer.state.global_step, entries(trainer)

    steps, _ = both(tmp_path, summary, train=Stream(), max_steps=5)
    assert steps == 5
    for cls in TRAINERS:
        with pytest.raises(ValueError, match="max_steps"):
            make(cls, tmp_path, train=Stream())


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
