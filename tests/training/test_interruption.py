"""A killed worker stops the run loudly, and the run resumes as if nothing had happened."""

import json
import shutil

import pytest
import safetensors.torch
from support import interrupted_run
from support.launching import launch
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
    grouped = ["--samples_per_class", "2"]
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


@pytest.mark.slow
def test_a_sharded_run_resumes_and_its_model_loads(tmp_path):
    settings = {"transformer_layer_cls_to_wrap": ["ViTLayer"]}
    whole, again = resumed(tmp_path, "--fsdp", "--fsdp_config", json.dumps(settings))
    assert len(whole) == 10 and again == whole
    _, report = AutoModelForImageClassification.from_pretrained(
        tmp_path / "final", output_loading_info=True
    )
    assert not any(report.values()), report
    head = safetensors.torch.load_file(tmp_path / "final" / "projection_head.safetensors")
    assert head["output.weight"].shape == (8, 32)
