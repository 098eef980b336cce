import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import Images, StopAt, beit, config, logged, vit
from transformers import AutoModelForImageClassification

from clce_hf import CLCETrainer

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}


def run(folder, build, stop=None, resume=None, **fields):
    trainer = CLCETrainer(
        build(),
        config(folder, max_steps=-1, save_strategy="steps", save_steps=1, **fields),
        train_dataset=Images(29),
        callbacks=[StopAt(stop)] if stop else [],
    )
    if resume and trainer.args.samples_per_class:
        # Stock's sampler draws the order of the images from this state; ours must not.
        torch.manual_seed(1)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.filterwarnings("ignore:.*have fewer than samples_per_class")
@pytest.mark.parametrize("stop", [2, 4, 6])
@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize("samples_per_class", [None, 4])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, stop, projection_dim, samples_per_class):
    fields = {
        "num_train_epochs": 3,
        "projection_dim": projection_dim,
        "samples_per_class": samples_per_class,
        "logging_steps": 1,
    }

    def build():
        return vit(**DROPOUT)

    whole = run(tmp_path / "whole", build, **fields)
    steps_an_epoch = 4
    assert whole.state.global_step == 3 * steps_an_epoch
    run(tmp_path / "cut", build, stop=stop, **fields)
    checkpoint = tmp_path / "cut" / f"checkpoint-{stop}"
    resumed = run(tmp_path / "cut", build, resume=str(checkpoint), **fields)
    for name in ("loss", "ce_loss", "contrastive_loss", "grad_norm"):
        assert logged(resumed, name) == logged(whole, name)
    expected = whole.model.state_dict()
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, expected[name])


def test_what_is_saved_loads_without_the_package(tmp_path):
    images = Images(8)
    torch.save(images.pixel_values, tmp_path / "images.pt")
    logits = []
    for build in (vit, beit):
        folder = tmp_path / build.__name__
        trainer = CLCETrainer(build(), config(folder, projection_dim=8), train_dataset=images)
        trainer.train()
        trainer.save_model()
        with torch.no_grad():
            logits.append(trainer.model.eval()(images.pixel_values).logits)
        assert "projection_head" not in " ".join(load_file(folder / "model.safetensors"))
        head = load_file(folder / "projection_head.safetensors")
        assert head["output.weight"].shape == (8, 32)
        assert torch.equal(head["output.weight"], trainer.projection_head.output.weight)
    script = """
import sys, torch, warnings
warnings.simplefilter("error")
from transformers import AutoModelForImageClassification
images = torch.load("images.pt", weights_only=True)
for folder in ("vit", "beit"):
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert "clce_hf" not in sys.modules
    print(model.eval()(images).logits.tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    loaded = [torch.tensor(json.loads(line)) for line in done.stdout.splitlines()]
    torch.testing.assert_close(loaded, logits)


def test_the_model_saved_by_its_own_method_has_no_projection_head(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path, projection_dim=8), train_dataset=Images())
    trainer.train()
    trainer.model.save_pretrained(tmp_path / "by_hand")
    assert "projection_head" not in " ".join(load_file(tmp_path / "by_hand" / "model.safetensors"))
    _, info = AutoModelForImageClassification.from_pretrained(
        tmp_path / "by_hand", output_loading_info=True
    )
    assert not any(info.values())


class Own(torch.nn.Module):
    """A classifier that is no model of Transformers."""

    def __init__(self):
        super().__init__()
        self.body, self.head = torch.nn.Linear(768, 32), torch.nn.Linear(32, 4)

    def forward(self, pixel_values):
        return {"logits": self.head(self.body(pixel_values.flatten(1)))}


def test_a_module_of_ones_own_is_saved_without_the_projection_head(tmp_path):
    trainer = CLCETrainer(Own(), config(tmp_path, projection_dim=8), train_dataset=Images())
    trainer.train()
    trainer.save_model()
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == {"body.weight", "body.bias", "head.weight", "head.bias"}
    head = load_file(tmp_path / "projection_head.safetensors")
    assert torch.equal(head["output.weight"], trainer.projection_head.output.weight)


def test_the_best_model_brings_its_projection_head(tmp_path):
    args = config(
        tmp_path,
        max_steps=-1,
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        projection_dim=8,
        metric_for_best_model="eval_epoch_number",
        greater_is_better=False,
    )
    trainer = CLCETrainer(
        vit(),
        args,
        train_dataset=Images(),
        eval_dataset=Images(16, seed=1),
        compute_metrics=lambda prediction: {"epoch_number": trainer.state.epoch},
    )
    trainer.train()
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == "checkpoint-4"
    assert trainer.state.global_step == 12
    expected = AutoModelForImageClassification.from_pretrained(best).state_dict()
    for name, value in expected.items():
        assert torch.equal(trainer.model.state_dict()[name], value)
    head = load_file(best / "projection_head.safetensors")
    assert torch.equal(head["output.weight"], trainer.projection_head.output.weight)


@pytest.mark.parametrize(
    ("saved", "wanted", "message"),
    [
        (8, None, "was trained with a projection head.*set the projection_dim"),
        (None, 8, "has no projection_head.safetensors.*leave projection_dim out"),
        (8, 16, "does not fit this run's projection head.*Set the projection_dim"),
    ],
)
def test_a_projection_head_that_does_not_fit_is_refused(tmp_path, saved, wanted, message):
    fields = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    args = config(tmp_path, projection_dim=saved, **fields)
    CLCETrainer(vit(), args, train_dataset=Images()).train()
    args = config(tmp_path, projection_dim=wanted, **fields)
    trainer = CLCETrainer(vit(), args, train_dataset=Images())
    with pytest.raises(ValueError, match=message) as error:
        trainer.train(resume_from_checkpoint=True)
    assert str(tmp_path) not in str(error.value)
