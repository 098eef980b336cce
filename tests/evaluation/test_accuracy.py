import numpy as np
import pytest
from transformers import EvalPrediction

from clce_hf.evaluation.hf_metrics import compute_accuracy


def test_accuracy_is_the_share_of_right_classes():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(101, 7)), generator.integers(0, 7, 101)
    expected = sum(int(row.argmax() == label) for row, label in zip(logits, labels, strict=True))
    metrics = compute_accuracy(EvalPrediction(logits, labels))
    assert metrics == {"accuracy": pytest.approx(expected / 101, abs=1e-12)}
    assert type(metrics["accuracy"]) is float


def test_accuracy_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(cache))
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_CACHE", str(cache))
    compute_accuracy(EvalPrediction(np.eye(3), np.arange(3)))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
