"""Run the cells of a comparison: train, measure, and keep each in a folder of its own.

Any number of processes may work on one folder at once. Each takes the next cell that is neither
finished nor locked by another process. A lock ends with its process, so a killed comparison
resumes with the cells that are not finished.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainerCallback

from clce_hf.comparison.grid import Cell
from clce_hf.errors import UserError
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.record import RECORD_FILE, Run
from clce_hf.evaluation.suite import measure
from clce_hf.trainer import CLCETrainer


def run_cells(cells: Sequence[Cell], folder: Path, train: Callable[[Cell], Run]) -> None:
    """Train the cells that are not done, except those that other processes train.

    Args:
        cells: to be done.
        folder: holds a folder for each cell.
        train: trains and measures one cell.
    """
    for cell in cells:
        place = folder / cell.name
        place.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(place / "lock", blocking=False):
                if not is_done(cell, folder):
                    train(cell).save(place)
        except Timeout:
            continue


def is_done(cell: Cell, folder: Path) -> bool:
    """Whether the cell's run is complete on disk."""
    return (folder / cell.name / RECORD_FILE).exists()


def load_runs(cells: Sequence[Cell], folder: Path) -> Iterator[Run]:
    """Read the runs of the cells that are done."""
    return (Run.load(folder / cell.name) for cell in cells if is_done(cell, folder))


def train_and_measure(cell: Cell, trainer: CLCETrainer, images: Dataset) -> Run:
    """Train, then measure on images that were not trained on.

    `seconds_per_step` among the metrics is the median over the steps, on which neither the start-up
    of the first step nor an evaluation between two steps has an effect.

    Args:
        cell: that the trainer was made for.
        trainer: not trained yet.
        images: labeled, to be measured on.

    Raises:
        UserError: if the trained model returns numbers that are not finite.
    """
    clock = StepClock()
    trainer.add_callback(clock)
    trainer.train()
    args = trainer.args
    predictions = infer(
        cast(nn.Module, trainer.model),
        images,
        args.per_device_eval_batch_size,
        args.classification_layer,
    )
    # Its predictions would be class 0 throughout, which may even be the most frequent one.
    if not (predictions.embeddings.isfinite().all() and predictions.logits.isfinite().all()):
        raise UserError(
            f"{cell} diverged: embeddings or logits are not finite. Lower its learning_rate, or "
            "leave the method out, and give the command again: finished runs are kept."
        )
    return Run(
        method=cell.method.name,
        seed=cell.seed,
        shots=cell.shots,
        batch_size=args.train_batch_size * args.gradient_accumulation_steps,
        predictions=predictions,
        metrics={
            **measure(predictions, shots=()).metrics,
            "seconds_per_step": statistics.median(clock.seconds),
        },
        log_history=trainer.state.log_history,
    )


class StepClock(TrainerCallback):
    """Seconds from the end of each step to the end of the next, data loading included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time since the last step."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
