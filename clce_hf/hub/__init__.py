"""What goes to the Hugging Face Hub: `PublishingTrainer`, the model card and its results.

A push that fails is explained and loses nothing, and a token never lies in a saved file. This room
computes no loss and draws no picture: `CLCETrainer`, which derives from its trainer, does.
"""

from clce_hf.hub.model_card import CardMethod
from clce_hf.hub.publishing import PublishingTrainer

__all__ = ["CardMethod", "PublishingTrainer"]
