"""Train one cell of a comparison with a trainer, and measure what comes of it."""

import statistics
from typing import cast

from torch import nn
from torch.utils.data import Dataset

from clce_hf.comparison.grid import Cell
from clce_hf.comparison.step_clock import StepClock
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.record import Record
from clce_hf.evaluation.suite import classification_metrics, embedding_metrics
from clce_hf.trainer import CLCETrainer


def train_and_measure(cell: Cell, trainer: CLCETrainer, images: Dataset) -> Record:
    """Train, then measure on images that were not trained on.

    `seconds_per_step` among the metrics is the median over the steps, which neither the first one's
    start-up nor an evaluation now and then moves.

    Args:
        cell: what the trainer was made for.
        trainer: not trained yet.
        images: labelled, to be measured on.
    """
    clock = StepClock()
    trainer.add_callback(clock)
    trainer.train()
    args = trainer.args
    found = infer(cast(nn.Module, trainer.model), images, args.per_device_eval_batch_size)
    return Record(
        method=cell.method.name,
        seed=cell.seed,
        shots=cell.shots,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps,
        metrics={
            **classification_metrics(found.logits, found.labels),
            **embedding_metrics(found.embeddings, found.labels),
            "seconds_per_step": statistics.median(clock.seconds),
        },
        log_history=trainer.state.log_history,
        logits=found.logits,
        embeddings=found.embeddings,
        labels=found.labels,
    )
