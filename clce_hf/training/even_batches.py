"""Give every process a batch in every step of an evaluation."""

from typing import Any

from accelerate.data_loader import BatchSamplerShard


def fill_last_batches(dataloader: Any) -> None:
    """Have Accelerate repeat images at the end, whatever `even_batches` is in training.

    Trainer gathers after every batch of an evaluation, and would wait for a process that has one
    batch less. It leaves repeated images out of the metrics.
    """
    batch_sampler = getattr(dataloader, "batch_sampler", None)
    if isinstance(batch_sampler, BatchSamplerShard):
        batch_sampler.even_batches = True
