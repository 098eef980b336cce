"""Embeddings of training images and tokens stay where the training ran, whatever is uploaded."""

import logging
import pickle
from pathlib import Path

import pytest
from huggingface_hub import HfApi, snapshot_download
from safetensors.torch import load_file
from support.pushing import TOKEN, make_trainer, repository
from support.resuming import memory_file

MEMORY = {"memory_size": 20, "save_strategy": "epoch"}


def assert_holds_no_memory(pushed, *expected):
    assert set(expected) <= set(pushed.files)
    for name, content in pushed.files.items():
        assert "memory" not in name and ".cache" not in name
        assert b'"targets":' not in content  # as the header of the memory's file says


@pytest.mark.parametrize(
    ("strategy", "folder"), [("checkpoint", "last-checkpoint"), ("all_checkpoints", "checkpoint-2")]
)
def test_pushes_hold_no_memory(hub, tmp_path, strategy, folder):
    saved = {"push_to_hub": True, "hub_strategy": strategy, "hub_always_push": True}
    trainer = make_trainer(tmp_path, **saved, **MEMORY)
    trainer.train()
    pushed = repository(hub)
    assert_holds_no_memory(pushed, f"{folder}/optimizer.pt", f"{folder}/model.safetensors")
    trainer.save_model()
    trainer.push_to_hub()
    assert_holds_no_memory(pushed, "model.safetensors")
    for step in (2, 4):
        file = memory_file(tmp_path / f"checkpoint-{step}")
        assert b'"targets":' in file.read_bytes()
        held = load_file(file)
        assert len(held["embeddings"]) == min(8 * step, 20)


def test_nor_does_an_upload_by_hand(hub, tmp_path):
    make_trainer(tmp_path, **MEMORY).train()
    assert memory_file(tmp_path / "checkpoint-4").is_file()
    api = HfApi(token=TOKEN)
    api.create_repo("ann/photos")
    # As `hf upload` does, which the message of a failed push proposes.
    api.upload_folder(repo_id="ann/photos", folder_path=tmp_path)
    assert_holds_no_memory(repository(hub), "checkpoint-4/optimizer.pt")
    api.upload_folder(repo_id="ann/photos", folder_path=tmp_path / "checkpoint-4")
    assert_holds_no_memory(repository(hub), "optimizer.pt")
    # And if a client of another version tried, the commit would not be made.
    with pytest.raises(ValueError, match=r"\.cache"):
        file = memory_file(tmp_path / "checkpoint-4")
        name = file.relative_to(tmp_path).as_posix()
        api.upload_file(repo_id="ann/photos", path_or_fileobj=file, path_in_repo=name)


def test_a_run_that_resumes_from_the_hub_says_that_the_memory_is_missing(hub, tmp_path, caplog):
    saved = {"push_to_hub": True, "hub_strategy": "checkpoint", "hub_always_push": True}
    make_trainer(tmp_path / "cut", **saved, **MEMORY).train()
    folder = snapshot_download("ann/photos", allow_patterns="last-checkpoint/*")
    resumed = make_trainer(tmp_path / "new", num_train_epochs=4, **MEMORY)
    with caplog.at_level(logging.WARNING, logger="clce_hf"):
        resumed.train(resume_from_checkpoint=str(Path(folder, "last-checkpoint")))
    told = [r.message for r in caplog.records if r.name == "clce_hf.training.checkpoints"]
    assert len(told) == 1 and "came from the Hub" in told[0]
    assert resumed.state.global_step == 8


@pytest.mark.parametrize("is_set", ["by its name", "with the strategy"])
def test_a_token_that_is_set_late_is_not_uploaded(hub, tmp_path, is_set):
    trainer = make_trainer(tmp_path, hub_token=None, save_strategy="epoch")
    if is_set == "by its name":
        trainer.args.hub_token = TOKEN
    else:
        trainer.args.set_push_to_hub(
            "ann/photos", strategy="all_checkpoints", token=TOKEN, always_push=True
        )
        trainer.init_hf_repo()
    trainer.train()
    trainer.push_to_hub()
    pushed = repository(hub).files
    names = [name for name in pushed if name.endswith("training_args.bin")]
    assert len(names) == (1 if is_set == "by its name" else 3)
    assert not [name for name, content in pushed.items() if TOKEN.encode() in content]
    assert trainer.args.hub_token == TOKEN


def test_a_token_is_in_no_pickle_of_the_arguments(hub, tmp_path):
    trainer = make_trainer(tmp_path, hub_token=TOKEN)
    assert TOKEN.encode() not in pickle.dumps(trainer.args)
    trainer.args.hub_token = TOKEN
    trainer._save(str(tmp_path / "saved"))  # as scripts do that gather the weights themselves
    assert TOKEN.encode() not in (tmp_path / "saved" / "training_args.bin").read_bytes()
