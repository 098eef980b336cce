"""What is done to a model: find its classification layer, read embeddings, add a projection head.

Loading a checkpoint and its weights and setting learning rates by layer live here, too. The images
that a model is trained on live in `data`, the steps of its training in `training`.
"""

from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.classification_layer import find_classification_layer
from clce_hf.models.projection import ProjectionHead

__all__ = ["EmbeddingCapture", "ProjectionHead", "find_classification_layer"]
