"""What importing the package brings with it."""

import subprocess
import sys

import pytest

import clce_hf


def imported_by(statement):
    """The top-level packages that a statement imports in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True
    )
    return set(finished.stdout.split())


def test_the_loss_needs_torch_alone():
    imported = imported_by("import clce_hf.loss; from clce_hf import CLCELoss, clce_loss")
    assert "torch" in imported
    assert not imported & {"transformers", "accelerate", "datasets", "evaluate", "sklearn"}


def test_public_names_are_there_and_others_are_not():
    for name in clce_hf.__all__:
        assert getattr(clce_hf, name).__name__ == name
    assert set(clce_hf.__all__) <= set(dir(clce_hf))
    with pytest.raises(AttributeError, match="has no attribute 'CLCE'"):
        clce_hf.CLCE  # noqa: B018
