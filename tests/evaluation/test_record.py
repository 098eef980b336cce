import math
from dataclasses import replace

import pytest
import torch

from clce_hf.evaluation.record import Record


def record(n=6):
    generator = torch.Generator().manual_seed(0)
    return Record(
        method="CLCE τ=0.5",
        seed=3,
        shots=None,
        batch_size=32,
        metrics={"accuracy": 0.5, "iso_score": math.nan},
        log_history=[{"step": 1, "loss": 2.5, "grad_norm": math.inf}],
        logits=torch.randn(n, 4, generator=generator),
        embeddings=torch.randn(n, 8, generator=generator),
        labels=torch.arange(n) % 4,
    )


def test_a_record_comes_back_from_its_folder(tmp_path):
    saved = record()
    saved.save(tmp_path / "runs" / "clce")
    loaded = Record.load(tmp_path / "runs" / "clce")
    for name in ("method", "seed", "shots", "batch_size", "log_history"):
        assert getattr(loaded, name) == getattr(saved, name)
    assert loaded.metrics["accuracy"] == 0.5 and math.isnan(loaded.metrics["iso_score"])
    for name in ("logits", "embeddings", "labels"):
        assert torch.equal(getattr(loaded, name), getattr(saved, name))
    assert torch.equal(loaded.predictions, saved.logits.argmax(1))


def test_tensors_are_kept_in_the_promised_types(tmp_path):
    strided = record().logits.half().T.contiguous().T
    half = replace(record(), logits=strided, labels=record().labels.int())
    half.save(tmp_path)
    loaded = Record.load(tmp_path)
    types = (loaded.logits.dtype, loaded.embeddings.dtype, loaded.labels.dtype)
    assert types == (torch.float32, torch.float32, torch.int64)


@pytest.mark.parametrize(
    "tensors", [{"labels": torch.zeros(5, dtype=torch.long)}, {"logits": torch.zeros(6)}]
)
def test_tensors_of_different_images_are_refused(tensors):
    with pytest.raises(ValueError, match=r"needs logits \(n, classes\)"):
        replace(record(), **tensors)
