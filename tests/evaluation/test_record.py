import math
from dataclasses import replace

import pytest
import torch

from clce_hf.evaluation.record import Predictions, Run


def predictions(n=6):
    generator = torch.Generator().manual_seed(0)
    return Predictions(
        logits=torch.randn(n, 4, generator=generator),
        embeddings=torch.randn(n, 8, generator=generator),
        labels=torch.arange(n) % 4,
    )


def run(**changes):
    facts = {"method": "CLCE τ=0.5", "seed": 3, "batch_size": 32, "predictions": predictions()}
    metrics = {"accuracy": 0.5, "iso_score": math.nan}
    log = [{"step": 1, "loss": 2.5, "grad_norm": math.inf}]
    return Run(**{**facts, "metrics": metrics, "log_history": log, **changes})


@pytest.mark.parametrize("changes", [{}, {"seed": None, "batch_size": None, "shots": 5}])
def test_a_run_comes_back_from_its_folder(tmp_path, changes):
    saved = run(**changes)
    saved.save(tmp_path / "runs" / "clce")
    loaded = Run.load(tmp_path / "runs" / "clce")
    for name in ("method", "seed", "shots", "batch_size", "settings", "log_history"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.metrics["accuracy"] == 0.5 and math.isnan(loaded.metrics["iso_score"])
    for name in ("logits", "embeddings", "labels"):
        assert torch.equal(getattr(loaded.predictions, name), getattr(saved.predictions, name))
    assert torch.equal(loaded.predictions.predicted, saved.predictions.logits.argmax(1))


def test_tensors_are_kept_in_the_promised_types(tmp_path):
    strided = predictions().logits.half().T.contiguous().T
    half = replace(predictions(), logits=strided, labels=predictions().labels.int())
    run(predictions=half).save(tmp_path)
    loaded = Run.load(tmp_path).predictions
    types = (loaded.logits.dtype, loaded.embeddings.dtype, loaded.labels.dtype)
    assert types == (torch.float32, torch.float32, torch.int64)


@pytest.mark.parametrize(
    "tensors", [{"labels": torch.zeros(5, dtype=torch.long)}, {"logits": torch.zeros(6)}]
)
def test_tensors_of_different_images_are_refused(tensors):
    with pytest.raises(ValueError, match=r"need logits \(n, classes\)"):
        replace(predictions(), **tensors)
