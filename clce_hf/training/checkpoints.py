"""Files of a checkpoint: the model's as stock Trainer has them, those of CLCE beside them."""

import logging
from pathlib import Path
from typing import Any, cast

import safetensors.torch
from torch import Tensor, nn
from transformers import Trainer

from clce_hf.models.projection import (
    ProjectionHead,
    load_projection,
    split_projection,
    write_projection,
)
from clce_hf.models.renamed_weights import load_renamed_weights
from clce_hf.training.memory import EmbeddingMemory

logger = logging.getLogger(__name__)

_NEVER_UPLOADED = ".cache/huggingface"
"""Folder that huggingface_hub leaves out of every upload, be it Trainer's of a whole checkpoint or
`hf upload`, and that the Hub refuses: embeddings of people's training images belong to neither."""


def save_projection(
    trainer: Trainer,
    head: ProjectionHead | None,
    folder: str | None,
    weights: dict[str, Tensor] | None,
) -> dict[str, Tensor] | None:
    """Write the weights of a projection head into a file of their own; return the others.

    Args:
        trainer: whose model is saved.
        head: projection head that the model has as a child; without one, nothing is done.
        folder: of the checkpoint, made if missing; None for `output_dir`.
        weights: of the whole model, where its modules hold shards; else None.
    """
    if head is None:
        return weights
    weights = cast(nn.Module, trainer.model).state_dict() if weights is None else weights
    model_weights, head_weights = split_projection(weights)
    if trainer.args.should_save and head_weights:
        write_projection(head_weights, cast(str, folder or trainer.args.output_dir))
    return model_weights


def load_weights(trainer: Trainer, model: Any, head: ProjectionHead | None, folder: str) -> bool:
    """Load a projection head, and the model if its weights were renamed when they were saved.

    Args:
        trainer: the one that resumes or loads its best model.
        model: to load into; None for the trainer's.
        head: projection head, if there is one.
        folder: of the checkpoint.

    Returns:
        Whether the model was loaded; otherwise Trainer can load it.

    Raises:
        ValueError: if the checkpoint's head does not fit, or weights of the model are missing.
    """
    # Checkpoints of FSDP and DeepSpeed hold the whole model, head included, in its own names.
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return False
    load_projection(head, folder)
    loaded_into = trainer.model if model is None else model
    return load_renamed_weights(cast(nn.Module, loaded_into), folder)


def save_memory(
    trainer: Trainer, memory: EmbeddingMemory | None, folder: str, gathers: bool
) -> None:
    """Write the embeddings of past batches into a checkpoint, where no upload finds them.

    There is one file for all processes, or one for each where these gather nothing.

    Args:
        trainer: whose checkpoint it is.
        memory: to be written, unless it is empty.
        folder: of the checkpoint.
        gathers: whether all processes hold the same memory.
    """
    state = {} if memory is None else memory.state_dict()
    if state and (trainer.args.should_save or not gathers):
        file = _memory_file(trainer, folder, gathers)
        file.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(state, file)


def load_memory(
    trainer: Trainer, memory: EmbeddingMemory | None, folder: str, gathers: bool
) -> None:
    """Restore the embeddings of past batches; without a file they start anew, with a warning.

    Args:
        trainer: the one that resumes.
        memory: to be filled.
        folder: of the checkpoint.
        gathers: as in `save_memory`.
    """
    if memory is None:
        return
    file = _memory_file(trainer, folder, gathers)
    if file.is_file():
        memory.load_state_dict(safetensors.torch.load_file(file), trainer.args.device)
    elif not memory.is_full and (trainer.is_world_process_zero() or not gathers):
        logger.warning(
            f"The checkpoint {Path(folder).name} has no {file.name}: it was saved with "
            "memory_size=0, save_only_model or another gather_across_devices, or came from the "
            "Hub. The memory of past embeddings starts empty, so training differs from one that "
            "never stopped."
        )


def _memory_file(trainer: Trainer, folder: str, gathers: bool) -> Path:
    is_shared = gathers or trainer.args.world_size == 1
    suffix = "" if is_shared else f"_{trainer.args.process_index}"
    return Path(folder, _NEVER_UPLOADED, f"embedding_memory{suffix}.safetensors")
