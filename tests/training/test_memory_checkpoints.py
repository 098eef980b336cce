"""The memory of past embeddings in checkpoints: a run that resumes has the one that it left."""

import pytest
import torch
from safetensors.torch import load_file
from support.resuming import memory_file, run
from support.tiny import NUM_CLASSES, Images, SoftImages, logged
from support.training import assert_same_weights

TERMS = ("loss", "ce_loss", "contrastive_loss", "positives_per_anchor", "grad_norm")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Whole runs, each trained once for all tests: trainer and folder."""
    found = {}

    def whole(data, **fields):
        key = (data, *fields.items())
        if key not in found:
            folder = tmp_path_factory.mktemp("whole")
            found[key] = run(folder, data=data(29), **fields), folder
        return found[key]

    return whole


@pytest.mark.parametrize(
    ("memory_size", "stop"),
    [
        (20, 1),  # half full, in the middle of an epoch
        (20, 3),  # full and wrapped
        (20, 4),  # the same, at the end of an epoch
        (20, 6),
        (5, 6),  # smaller than a batch
        (1000, 6),
    ],
)
@pytest.mark.parametrize("fields", [{}, {"gradient_accumulation_steps": 2}], ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, uninterrupted, memory_size, stop, fields):
    fields = {"memory_size": memory_size, **fields}
    whole, folder = uninterrupted(Images, **fields)
    run(tmp_path, stop=stop, **fields)
    resumed = run(tmp_path, resume=tmp_path / f"checkpoint-{stop}", **fields)
    assert resumed.state.global_step == whole.state.global_step > stop - 1
    for name in TERMS:
        assert logged(resumed, name) == logged(whole, name)
    assert_same_weights(resumed.model, whole.model)
    last = f"checkpoint-{whole.state.global_step}"
    ours, theirs = (load_file(memory_file(place / last)) for place in (tmp_path, folder))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("fields", [{"projection_dim": 8}, {"cached_mini_batch_size": 3}], ids=str)
def test_so_is_one_with_soft_labels(tmp_path, uninterrupted, fields):
    fields = {"memory_size": 20, **fields}
    whole, _ = uninterrupted(SoftImages, **fields)
    run(tmp_path, stop=3, data=SoftImages(29), **fields)
    held = load_file(memory_file(tmp_path / "checkpoint-3"))
    assert held["targets"].shape == (20, NUM_CLASSES)
    resumed = run(tmp_path, resume=tmp_path / "checkpoint-3", data=SoftImages(29), **fields)
    for name in TERMS:
        assert logged(resumed, name) == logged(whole, name)
    assert_same_weights(resumed.model, whole.model)


def told(caplog):
    return [r.message for r in caplog.records if r.name == "clce_hf.training.checkpoints"]


@pytest.mark.parametrize("without", [{"save_only_model": True}, {"memory_size": 0}], ids=str)
def test_a_checkpoint_without_memory_is_told_of_once(tmp_path, caplog, without):
    run(tmp_path, stop=3, **{"memory_size": 20, **without})
    assert not list(tmp_path.rglob("embedding_memory*"))
    assert not told(caplog)
    resumed = run(tmp_path, resume=tmp_path / "checkpoint-3", memory_size=20)
    (message,) = told(caplog)
    assert "checkpoint-3 has no embedding_memory.safetensors" in message
    assert "starts empty" in message and str(tmp_path) not in message
    # The next batch is contrasted alone.
    assert logged(resumed, "positives_per_anchor")[-9] < 3
    held = load_file(memory_file(tmp_path / "checkpoint-12"))
    assert held["embeddings"].shape == (20, 32)


def oldest_first(checkpoint):
    state = load_file(memory_file(checkpoint))
    is_full = len(state["targets"]) == 20
    return state["embeddings"].roll(-int(state["next"]) if is_full else 0, dims=0)


@pytest.mark.parametrize("memory_size", [12, 40])
def test_a_memory_of_another_size_keeps_the_newest(tmp_path, memory_size):
    run(tmp_path, stop=6, memory_size=20)
    saved = oldest_first(tmp_path / "checkpoint-6")
    resumed = tmp_path / "resumed"
    run(resumed, resume=tmp_path / "checkpoint-6", stop=7, memory_size=memory_size)
    state = load_file(memory_file(resumed / "checkpoint-7"))
    place = int(state["next"]) if memory_size == 12 else 0
    held = state["embeddings"].roll(-place, dims=0)
    expected = saved if memory_size == 40 else saved[-4:]
    assert torch.equal(held[:-8], expected)
    assert len(held) == min(memory_size, 28)


def test_a_run_without_memory_passes_over_that_of_the_checkpoint(tmp_path, caplog):
    run(tmp_path, stop=3, memory_size=20)
    run(tmp_path, resume=tmp_path / "checkpoint-3", memory_size=0)
    assert not told(caplog)
    assert not memory_file(tmp_path / "checkpoint-12").exists()
