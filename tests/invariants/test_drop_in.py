"""Scripts written for Transformers' Trainer run with the one import swapped."""

import math
import runpy
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.swap import STOCK, SWAPPED
from support.tiny import vit
from support.tiny_models import save_timm
from transformers import AutoModelForImageClassification, Trainer, ViTImageProcessor

from clce_hf import CLCETrainer

SCRIPTS = sorted(Path(__file__).with_name("scripts").glob("*.py"))


def test_the_scripts_are_there():
    assert len(SCRIPTS) == 7


@pytest.fixture
def checkpoint(request, tmp_path):
    """A checkpoint with a head for other classes than those of the photographs."""
    folder = tmp_path / "checkpoint"
    if request.param == "timm_checkpoint":
        save_timm("timm-beit3", folder)
    else:
        vit(num_labels=9).save_pretrained(folder)
        ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # by PEFT
@pytest.mark.parametrize("cls", [Trainer, CLCETrainer])
@pytest.mark.parametrize(
    ("script", "checkpoint"),
    [pytest.param(script, script.stem, id=script.stem) for script in SCRIPTS],
    indirect=["checkpoint"],
)
def test_a_script_runs_with_either(folder, checkpoint, tmp_path, monkeypatch, script, cls):
    code = script.read_text()
    assert code.count(STOCK) == 1
    copy = tmp_path / script.name
    copy.write_text(code if cls is Trainer else code.replace(STOCK, SWAPPED))
    output = tmp_path / "output"
    monkeypatch.setattr(sys, "argv", [script.name, str(folder), str(checkpoint), str(output)])
    ran = runpy.run_path(str(copy), run_name="__main__")
    trainer = ran["trainer"]
    assert type(trainer) is cls
    assert math.isfinite(ran["metrics"]["eval_loss"])
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {"loss", "grad_norm", "learning_rate", "eval_loss", "train_runtime"} <= logged
    terms = {"ce_loss", "contrastive_loss", "positives_per_anchor", "eval_contrastive_loss"}
    assert terms & logged == (terms if cls is CLCETrainer else set())
    if script.stem == "lora":
        assert load_file(output / "adapter_model.safetensors")
    else:
        _, loading = AutoModelForImageClassification.from_pretrained(
            output, output_loading_info=True
        )
        assert not any(loading.values())
