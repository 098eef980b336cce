"""What is logged arrives at the trackers that Trainer reports to."""

import json
import sqlite3
from contextlib import closing

import pytest
from support.tiny import Images, config, logged, vit
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from clce_hf import CLCETrainer

NAMES = ("loss", "ce_loss", "contrastive_loss", "positives_per_anchor")


def run(folder, **fields):
    trainer = CLCETrainer(
        vit(),
        config(folder, eval_strategy="steps", eval_steps=3, **fields),
        train_dataset=Images(),
        eval_dataset=Images(8, seed=1),
    )
    trainer.train()
    return trainer


def test_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    trainer = run(tmp_path, report_to="tensorboard")
    events = EventAccumulator(str(tmp_path / "runs"))
    events.Reload()
    for name in NAMES:
        values = [scalar.value for scalar in events.Scalars(f"train/{name}")]
        assert values == pytest.approx(logged(trainer, name))
    (last,) = events.Scalars("eval/contrastive_loss")
    assert last.value == pytest.approx(logged(trainer, "eval_contrastive_loss")[0])


def test_trackio(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trainer = run(tmp_path, report_to="trackio", project="photos", run_name="clce")
    with closing(sqlite3.connect(tmp_path / "trackio" / "photos.db")) as database:
        query = "SELECT metrics FROM metrics WHERE run_name = 'clce' ORDER BY step, id"
        rows = [json.loads(metrics) for (metrics,) in database.execute(query)]
    for name in NAMES:
        key = f"train/{name}"
        assert [row[key] for row in rows if key in row] == pytest.approx(logged(trainer, name))
    (last,) = [row for row in rows if "eval/contrastive_loss" in row]
    assert last["eval/contrastive_loss"] == logged(trainer, "eval_contrastive_loss")[0]
