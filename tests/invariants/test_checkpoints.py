"""Checkpoints, the best model and resuming, stock Trainer beside CLCETrainer in every test."""

from pathlib import Path

import pytest
from support.beside_stock import (
    Events,
    both,
    checkpoints,
    entries,
    make,
)
from support.tiny import StopAt
from transformers import (
    EarlyStoppingCallback,
)


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
        # Ours holds the memory of past embeddings, too.
        names = [sorted({f.name for f in p.iterdir()} - {".cache"}) for p in sorted(folders)]
        return checkpoints(trainer), names

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
