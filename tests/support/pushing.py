"""A trainer that pushes to the Hub of the tests, and what it finds there."""

import subprocess
import sys

from transformers import ViTImageProcessor

from clce_hf import CLCETrainer
from support.tiny import CLASSES, Images, config, vit

NAMES = {
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: i for i, name in enumerate(CLASSES)},
}
TOKEN = "hf_ann"
PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})


def make_trainer(folder, build=vit, **fields):
    settings = {
        "hub_model_id": "ann/photos",
        "hub_token": TOKEN,
        "max_steps": -1,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        **fields,
    }
    return CLCETrainer(
        build(**NAMES),
        config(folder, **settings),
        train_dataset=Images(16),
        eval_dataset=Images(16, seed=1),
        processing_class=PROCESSOR,
    )


def repository(hub, id="ann/photos"):
    return hub.repositories["model", id]


def root_files(repository):
    return {name for name in repository.files if "/" not in name}


def run_without_the_package(script, *arguments, cwd):
    """Run a script where the package cannot be imported; return what it prints and warns."""
    blocked = "import sys; sys.modules['clce_hf'] = None\n"
    finished = subprocess.run(
        [sys.executable, "-c", blocked + script, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, finished.stderr
