"""Runs that stop at a step and resume from its checkpoint, on images of random transforms."""

import itertools
import random
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from clce_hf import CLCEConfig, CLCETrainer
from support.tiny import Images, StopAt, config, vit

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}


class NoisyImages(Images):
    """Images that are changed at random, by every generator that transforms draw from."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        noise = torch.rand(()) + float(np.random.uniform()) + random.gauss(0, 1)
        return {**row, "pixel_values": row["pixel_values"] + noise}


class NoisyStream(IterableDataset):
    """The same as a stream in random order, without a length, shared by the workers."""

    def __init__(self, n):
        self.images = NoisyImages(n)

    def __iter__(self):
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        order = torch.randperm(len(self.images)).tolist()
        return (self.images[i] for i in itertools.islice(order, first, None, step))


def mix_at_random(rows):
    """Collate, and change the batch at random."""
    batch = default_collate(rows)
    return {**batch, "pixel_values": batch["pixel_values"] * torch.rand(())}


def memory_file(checkpoint, process=None):
    """Where a checkpoint holds the embeddings of past batches."""
    suffix = "" if process is None else f"_{process}"
    return Path(checkpoint, ".cache", "huggingface", f"embedding_memory{suffix}.safetensors")


def run(
    folder,
    stop=None,
    resume=None,
    data=None,
    cls=CLCETrainer,
    arguments=CLCEConfig,
    collate=None,
    **fields,
):
    """Train for three epochs of four steps, with a checkpoint at each; the last batch is short."""
    epochs = {"max_steps": -1, "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1}
    held_out = Images(8, seed=1) if "eval_strategy" in fields else None
    trainer = cls(
        vit(**DROPOUT),
        config(folder, arguments, **{**epochs, **fields}),
        data_collator=collate,
        train_dataset=Images(29) if data is None else data,
        eval_dataset=held_out,
        callbacks=[StopAt(stop)] if stop else [],
    )
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer
