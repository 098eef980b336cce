"""CLCE for Hugging Face Transformers: fine-tune image classifiers with a contrastive loss."""

from clce_hf.config import CLCEConfig
from clce_hf.data.sampler import GroupByLabelSampler
from clce_hf.loss.clce import CLCELoss, clce_loss, label_aware_contrastive_loss
from clce_hf.trainer import CLCETrainer

__all__ = [
    "CLCEConfig",
    "CLCELoss",
    "CLCETrainer",
    "GroupByLabelSampler",
    "clce_loss",
    "label_aware_contrastive_loss",
]
