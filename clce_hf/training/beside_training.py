"""Run the model of a Trainer beside its training, which goes on as if that had not been.

The random numbers of the run are those of a run without it, running statistics of batch
normalization stay as they are, and so does which parts of the model are in training mode.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, set_seed
from transformers.utils import logging

from clce_hf.training.even_batches import fill_last_batches
from clce_hf.training.random_state import random_state, set_random_state


@contextlib.contextmanager
def beside_training(trainer: Trainer) -> Iterator[nn.Module]:
    """Give the bare model, on its device, in evaluation mode and without gradients.

    A model that is not on its device yet, as FSDP and DeepSpeed want it, is there meanwhile. Random
    numbers within are those of `args.seed`.
    """
    model = cast(nn.Module, trainer.model)
    modes = [(module, module.training) for module in model.modules()]
    place, device = next(model.parameters()).device, trainer.accelerator.device
    is_elsewhere = place.type == "cpu" != device.type
    try:
        if is_elsewhere:
            model.to(device)
        with torch.no_grad(), own_random_numbers(trainer.args.seed):
            yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode
        if is_elsewhere:
            model.to(place)


def loader_beside(trainer: Trainer, dataset: Any, description: str) -> DataLoader:
    """Return a loader of all rows, in their order, with the run's collator, columns and workers.

    Args:
        trainer: of the run.
        dataset: with a length.
        description: of the data, for the messages of Trainer.
    """
    args = trainer.args
    with every_row(args):
        loader = trainer._get_dataloader(dataset, description, args.eval_batch_size)
    fill_last_batches(loader)
    return loader


@contextlib.contextmanager
def every_row(args: TrainingArguments) -> Iterator[None]:
    """Have a loader that is made within drop no row, and leave no workers behind."""
    of_training = args.dataloader_drop_last, args.dataloader_persistent_workers
    args.dataloader_drop_last = args.dataloader_persistent_workers = False
    try:
        yield
    finally:
        args.dataloader_drop_last, args.dataloader_persistent_workers = of_training


def with_progress(trainer: Trainer, loader: DataLoader, doing: str) -> Iterator[dict]:
    """Give the batches of a loader, with a progress bar where they take long."""
    is_hidden = trainer.args.disable_tqdm or not trainer.is_local_process_zero()
    return iter(logging.tqdm(loader, desc=doing, delay=2, leave=False, disable=is_hidden))


@contextlib.contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Seed every generator within, and leave all of them as they were."""
    before = random_state()
    accelerator = torch.accelerator.current_accelerator()
    kind = "cpu" if accelerator is None else accelerator.type
    devices = range(torch.accelerator.device_count())
    try:
        with torch.random.fork_rng(devices, device_type=kind):
            set_seed(seed)
            yield
    finally:
        set_random_state(before)
