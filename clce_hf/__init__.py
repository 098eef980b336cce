"""CLCE for Hugging Face Transformers: fine-tune image classifiers with a contrastive loss."""

from clce_hf.loss import CLCELoss, clce_loss, label_aware_contrastive_loss

__all__ = ["CLCELoss", "clce_loss", "label_aware_contrastive_loss"]
