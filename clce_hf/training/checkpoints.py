"""The weights of a checkpoint: the model's as stock Trainer has them, the head's beside them."""

from typing import Any, cast

from torch import Tensor, nn
from transformers import Trainer

from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.projection import load_projection, split_projection, write_projection
from clce_hf.models.renamed_weights import load_renamed_weights


def save_projection(
    trainer: Trainer,
    capture: EmbeddingCapture | None,
    folder: str | None,
    weights: dict[str, Tensor] | None,
) -> dict[str, Tensor] | None:
    """Write the weights of a projection head into a file of their own; return the others.

    Args:
        trainer: whose model is saved.
        capture: of its embeddings; without a projection head, nothing is done.
        folder: of the checkpoint, made if missing; None for `output_dir`.
        weights: of the whole model, where its modules hold shards; else None.
    """
    if capture is None or capture.projection is None:
        return weights
    weights = cast(nn.Module, trainer.model).state_dict() if weights is None else weights
    model_weights, head_weights = split_projection(weights)
    if trainer.args.should_save and head_weights:
        write_projection(head_weights, cast(str, folder or trainer.args.output_dir))
    return model_weights


def load_weights(
    trainer: Trainer, model: Any, capture: EmbeddingCapture | None, folder: str
) -> bool:
    """Load a projection head, and the model if its weights were renamed when they were saved.

    Args:
        trainer: the one that resumes or loads its best model.
        model: to load into; None for the trainer's.
        capture: of the embeddings, with the head if there is one.
        folder: of the checkpoint.

    Returns:
        Whether the model was loaded; otherwise Trainer can load it.

    Raises:
        ValueError: if the checkpoint's head does not fit, or weights of the model are missing.
    """
    # Checkpoints of FSDP and DeepSpeed hold the whole model, head included, in its own names.
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return False
    load_projection(None if capture is None else capture.projection, folder)
    loaded_into = trainer.model if model is None else model
    return load_renamed_weights(cast(nn.Module, loaded_into), folder)
