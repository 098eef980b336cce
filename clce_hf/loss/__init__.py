"""The tensor functions of CLCE: the fused loss, its contrastive term and how labels make pairs.

They take tensors and return tensors, in one process or over all of them, and import torch alone.
Models, data sets and trainers live in other rooms.
"""

from clce_hf.loss.clce import CLCELoss, clce_loss, label_aware_contrastive_loss
from clce_hf.loss.logit_adjustment import LogitAdjustedLoss

__all__ = ["CLCELoss", "LogitAdjustedLoss", "clce_loss", "label_aware_contrastive_loss"]
