"""CLCE for Hugging Face Transformers: fine-tune image classifiers with a contrastive loss."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clce_hf.config import CLCEConfig
    from clce_hf.data.sampler import GroupByLabelSampler
    from clce_hf.loss.clce import CLCELoss, clce_loss, label_aware_contrastive_loss
    from clce_hf.loss.logit_adjustment import LogitAdjustedLoss
    from clce_hf.trainer import CLCETrainer
    from clce_hf.training.knn_callback import KNNCallback

__all__ = [
    "CLCEConfig",
    "CLCELoss",
    "CLCETrainer",
    "GroupByLabelSampler",
    "KNNCallback",
    "LogitAdjustedLoss",
    "clce_loss",
    "label_aware_contrastive_loss",
]

_MODULES = {
    "CLCEConfig": "config",
    "CLCELoss": "loss",
    "CLCETrainer": "trainer",
    "GroupByLabelSampler": "data.sampler",
    "KNNCallback": "training.knn_callback",
    "LogitAdjustedLoss": "loss",
    "clce_loss": "loss",
    "label_aware_contrastive_loss": "loss",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562): the loss alone needs torch alone."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
