"""A run that resumes draws what it would have drawn, had it never stopped."""

import json

import pytest
from support import resumed_run
from support.launching import launch
from support.resuming import NoisyImages, NoisyStream, mix_at_random, run
from support.tiny import logged
from support.training import assert_same_weights
from transformers import Trainer, TrainingArguments

WORKERS = {"dataloader_num_workers": 2}
PERSISTENT = {**WORKERS, "dataloader_persistent_workers": True}
GROUPED = {"samples_per_class": 2}
UNSEEDED = {"use_seedable_sampler": False}
EVALUATED = {"eval_strategy": "steps", "eval_steps": 1}
ACCUMULATED = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4}
# Of three epochs of three steps: in the first, where not every worker has drawn a batch yet, at its
# end, and in the second.
STOPS = [1, 3, 5]


def assert_resumes_exactly(folder, data, stops=STOPS, **fields):
    whole = run(folder / "whole", data=data, **fields)
    for stop in stops:
        checkpoint = folder / "whole" / f"checkpoint-{stop}"
        resumed = run(folder / f"from-{stop}", resume=checkpoint, data=data, **fields)
        for name in ("loss", "grad_norm"):
            assert logged(resumed, name) == logged(whole, name), stop
        assert_same_weights(resumed.model, whole.model)
    return whole


IMAGES = {
    "here, evaluated": {
        **{**EVALUATED, "eval_on_start": True, "data_seed": 3},
        **{"auto_find_batch_size": True, "collate": mix_at_random},
    },
    "here, grouped": {**GROUPED, **ACCUMULATED, "cached_mini_batch_size": 2, "memory_size": 9},
    "here, unseeded": {"accelerator_config": {**UNSEEDED, "dispatch_batches": True}},
    "workers": {
        **WORKERS,
        **ACCUMULATED,
        "collate": mix_at_random,
        "dataloader_prefetch_factor": 1,
    },
    "persistent workers": {**PERSISTENT, "accelerator_config": UNSEEDED},
    "persistent workers, grouped": {**PERSISTENT, **GROUPED, **EVALUATED, "projection_dim": 8},
}
STREAMS = {
    "here": {},
    "here, accumulated": ACCUMULATED,
    "workers": {**WORKERS, "accelerator_config": {"dispatch_batches": False}},
    "persistent workers": PERSISTENT,
}


@pytest.mark.filterwarnings("ignore:.*have fewer than samples_per_class")
@pytest.mark.parametrize("fields", IMAGES.values(), ids=IMAGES)
def test_a_resumed_run_draws_as_if_it_had_never_stopped(tmp_path, fields):
    assert_resumes_exactly(tmp_path, NoisyImages(22), **fields)


@pytest.mark.parametrize("fields", STREAMS.values(), ids=STREAMS)
def test_so_it_does_from_a_stream_that_is_read_several_times(tmp_path, fields):
    whole = assert_resumes_exactly(tmp_path, NoisyStream(24), **fields, max_steps=8)
    assert whole.state.global_step == 8


def test_so_it_does_at_the_end_of_an_epoch_if_skipping_is_forbidden(tmp_path):
    fields = {**PERSISTENT, "ignore_data_skip": True}
    assert_resumes_exactly(tmp_path, NoisyImages(22), stops=[3], **fields)


@pytest.mark.slow
def test_so_it_does_in_two_processes(tmp_path):
    launch(resumed_run.__file__, str(tmp_path))
    found = json.loads((tmp_path / "losses.json").read_text())
    assert len(found) == len(resumed_run.CASES)
    for name, (whole, resumed) in found.items():
        assert len(whole) == 8 and resumed == whole, name


@pytest.mark.parametrize(
    "fields",
    [{"accelerator_config": UNSEEDED}, WORKERS, {**PERSISTENT, **EVALUATED}],
    ids=str,
)
def test_a_run_that_never_stops_draws_as_stock_trainer(tmp_path, fields):
    ours = run(tmp_path / "ours", data=NoisyImages(22), contrastive_weight=0.0, **fields)
    stock = run(
        tmp_path / "stock", data=NoisyImages(22), cls=Trainer, arguments=TrainingArguments, **fields
    )
    assert_same_weights(ours.model, stock.model)


def told(caplog):
    return [r.message for r in caplog.records if r.name == "clce_hf.training.resuming"]


@pytest.mark.parametrize(
    "resumed",
    [
        {"dataloader_num_workers": 1},
        {"per_device_train_batch_size": 4},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_run_that_resumes_with_other_settings_says_what_differs(tmp_path, caplog, resumed):
    run(tmp_path, stop=1, data=NoisyImages(22))
    last = tmp_path / "checkpoint-1"
    run(tmp_path / "again", resume=last, data=NoisyImages(22), stop=2, **resumed)
    (message,) = told(caplog)
    (name,) = resumed
    assert f"The checkpoint checkpoint-1 was saved with {name}=" in message
    assert "Random transforms of images differ" in message and str(tmp_path) not in message


def test_a_checkpoint_of_stock_trainer_is_told_of_only_where_it_matters(tmp_path, caplog):
    run(tmp_path, stop=3, data=NoisyImages(22), cls=Trainer, arguments=TrainingArguments)
    for stop in (3, 2):
        assert not told(caplog)
        run(tmp_path / str(stop), resume=tmp_path / f"checkpoint-{stop}", data=NoisyImages(22))
    (message,) = told(caplog)
    assert "checkpoint-2 does not tell in rng_state.pth how images are drawn" in message


def test_batches_that_are_skipped_are_not_read(tmp_path):
    class Counted(NoisyImages):
        read = 0

        def __getitem__(self, index):
            Counted.read += 1
            return super().__getitem__(index)

    run(tmp_path, stop=2, data=Counted(22))
    Counted.read = 0
    run(tmp_path / "again", resume=tmp_path / "checkpoint-2", data=Counted(22))
    assert Counted.read == 6 + 22 + 22


def test_stock_trainer_resumes_from_the_same_checkpoint(tmp_path):
    run(tmp_path, stop=2, data=NoisyImages(22), **WORKERS)
    assert (tmp_path / "checkpoint-2" / "rng_state.pth").stat().st_size < 100_000
    stock = {"cls": Trainer, "arguments": TrainingArguments}
    resumed = run(
        tmp_path / "again", resume=tmp_path / "checkpoint-2", data=NoisyImages(22), **stock
    )
    assert resumed.state.global_step == 9
