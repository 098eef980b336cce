"""A killed worker stops the run loudly, and the run resumes as if nothing had happened."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from support import interrupted_run
from support.launching import launch
from support.resuming import memory_file
from transformers import AutoModelForImageClassification

TERMS = ["loss", "grad_norm", "ce_loss", "contrastive_loss", "positives_per_anchor"]


def steps(folder):
    history = json.loads((folder / "log.json").read_text())
    return {
        entry["step"]: [entry[name] for name in TERMS] for entry in history if "ce_loss" in entry
    }


def resumed(folder, *arguments):
    """Steps of a run from its beginning, and of one that goes on from its second checkpoint."""
    launch(interrupted_run.__file__, str(folder), *arguments)
    whole = steps(folder)
    # What comes after step 6, which lies in the middle of the second epoch, is done again.
    shutil.rmtree(folder / "run" / "checkpoint-9")
    shutil.rmtree(folder / "run" / "checkpoint-10")
    launch(interrupted_run.__file__, str(folder), *arguments, "--resume")
    return whole, steps(folder)


@pytest.mark.slow
def test_a_killed_worker_is_told_and_the_run_resumes(tmp_path):
    # Of past embeddings, the memory is full, and wrapped, where the run goes on.
    grouped = ["--samples_per_class", "2", "--memory_size", "20"]
    launch(interrupted_run.__file__, str(tmp_path / "whole"), *grouped)
    # Were the other worker to wait for the killed one, the launch would run into its timeout.
    killed = launch(
        interrupted_run.__file__, str(tmp_path), *grouped, "--kill-at", "7", check=False
    )
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr and "interrupted_run.py FAILED" in killed.stderr
    assert not (tmp_path / "log.json").exists()

    launch(interrupted_run.__file__, str(tmp_path), *grouped, "--resume")
    whole = steps(tmp_path / "whole")
    assert len(whole) == 10
    assert steps(tmp_path) == whole
    ours, theirs = (
        load_file(memory_file(folder / "run" / "checkpoint-10"))
        for folder in (tmp_path, tmp_path / "whole")
    )
    assert ours["embeddings"].shape == (20, 8)
    assert torch.equal(ours["embeddings"], theirs["embeddings"])


@pytest.mark.slow
def test_a_sharded_run_resumes_and_its_model_loads(tmp_path):
    settings = {"transformer_layer_cls_to_wrap": ["ViTLayer"]}
    sharded = ["--fsdp", "--fsdp_config", json.dumps(settings)]
    # Each process has a memory of its own, which is half full where the run goes on.
    alone = ["--memory_size", "48", "--gather_across_devices", "false"]
    whole, again = resumed(tmp_path, *sharded, *alone)
    assert len(whole) == 10 and again == whole
    first, second = (
        load_file(memory_file(tmp_path / "run" / "checkpoint-6", process)) for process in (0, 1)
    )
    assert first["embeddings"].shape == second["embeddings"].shape == (24, 8)
    assert not torch.equal(first["embeddings"], second["embeddings"])
    _, report = AutoModelForImageClassification.from_pretrained(
        tmp_path / "final", output_loading_info=True
    )
    assert not any(report.values()), report
    head = load_file(tmp_path / "final" / "projection_head.safetensors")
    assert head["output.weight"].shape == (8, 32)
