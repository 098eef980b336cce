"""Runs that stop at a step and resume from its checkpoint."""

from pathlib import Path

from clce_hf import CLCETrainer
from support.tiny import Images, StopAt, config, vit

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}


def memory_file(checkpoint, process=None):
    """Where a checkpoint holds the embeddings of past batches."""
    suffix = "" if process is None else f"_{process}"
    return Path(checkpoint, ".cache", "huggingface", f"embedding_memory{suffix}.safetensors")


def run(folder, stop=None, resume=None, data=None, **fields):
    """Train for three epochs of four steps, with a checkpoint at each; the last batch is short."""
    trainer = CLCETrainer(
        vit(**DROPOUT),
        config(
            folder,
            **{"max_steps": -1, "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1},
            **fields,
        ),
        train_dataset=Images(29) if data is None else data,
        callbacks=[StopAt(stop)] if stop else [],
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer
