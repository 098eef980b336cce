"""Random states of dataloader workers, left in shared memory after each batch.

A worker draws batches ahead of training, so the state that a checkpoint needs, that after the last
batch which was trained on, is gone from the worker when the checkpoint is written.
"""

import pickle
import random
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from clce_hf.training.drawing import Drawing, Saved
from clce_hf.training.random_state import RandomState, random_state, set_random_state

States = list[RandomState | None]

_BYTES = 16_384
"""Room for one record, which takes less than 12,000."""


class WorkerStates:
    """Takes the place of a loader's collate function and of its initialization of workers.

    A worker counts its batches, and its record holds the count and the state after that batch.
    Enough are kept that what was trained on last is among them.

    Workers are numbered as in a run that never stopped: batch i of an epoch is drawn by worker i
    modulo their number. The loader of a run that resumes begins to count with a later batch, so its
    first worker continues another one.

    Args:
        loader: whose workers are watched; they must not have started.
        ahead: batches that are taken from the loader before they are trained on.
    """

    def __init__(self, loader: DataLoader, ahead: int) -> None:
        self._collate, self._initialize = loader.collate_fn, loader.worker_init_fn
        self._number = loader.num_workers
        self._kept = (loader.prefetch_factor or 0) + ahead + 1
        shape = self._number, self._kept, _BYTES
        self._records = torch.zeros(shape, dtype=torch.uint8).share_memory_()
        self._count = 0  # of the process that collates
        self._starts: States | None = None
        self._shift = 0
        loader.collate_fn, loader.worker_init_fn = self.collate, self.start

    # ---- in a worker ----

    def start(self, place: int) -> None:
        """Seed the loader's worker at this place, or let it continue."""
        worker = (place + self._shift) % self._number
        if worker != place:
            seed = torch.initial_seed() - place + worker
            random.seed(seed)
            torch.manual_seed(seed)
        if self._initialize is not None:
            self._initialize(worker)
        if self._starts is not None and (state := self._starts[worker]) is not None:
            set_random_state(state)

    def collate(self, rows: list[Any]) -> Any:
        """Make a batch, and leave the state after it."""
        batch = self._collate(rows)
        if (info := get_worker_info()) is not None:
            self._count += 1
            record = bytearray(pickle.dumps((self._count, random_state())))
            slot = self._records[(info.id + self._shift) % self._number, self._count % self._kept]
            slot[: len(record)] = torch.frombuffer(record, dtype=torch.uint8)
        return batch

    # ---- in the process that trains ----

    def renew(self, starts: States | None, shift: int) -> None:
        """Prepare for workers that are about to start.

        Args:
            starts: states that they continue; None where the loader seeds them.
            shift: the worker that the loader's first one continues.
        """
        self._records.zero_()
        self._starts, self._shift = starts, shift % self._number

    def counts(self) -> list[int]:
        """Return how many batches each worker has drawn."""
        slots = range(self._kept)
        return [max(self._read(w, slot)[0] for slot in slots) for w in range(self._number)]

    def after(self, counts: list[int]) -> States:
        """Return the state of each worker after so many batches; None where it is not known."""
        return [self._after(worker, count) for worker, count in enumerate(counts)]

    def _after(self, worker: int, count: int) -> RandomState | None:
        if count == 0:
            return None if self._starts is None else self._starts[worker]
        found, state = self._read(worker, count % self._kept)
        return state if found == count else None

    def _read(self, worker: int, slot: int) -> tuple[int, RandomState | None]:
        record = self._records[worker, slot]
        return pickle.loads(record.numpy().tobytes()) if record.any() else (0, None)


class DrawingInWorkers(Drawing):
    """Batches drawn by workers, from generators of their own."""

    def __init__(self, loader: Any, base: DataLoader) -> None:
        super().__init__(loader, base)
        self._workers = WorkerStates(base, ahead=self._at_once)

    def begin_epoch(self, epoch: int, skipped: int, saved: Saved | None) -> None:
        """Take note of a new epoch, as `Drawing` does, and let its workers go on if they must."""
        persist, is_first = self._base.persistent_workers, self._epoch is None
        if is_first:
            states = None if saved is None else saved["workers"]
        else:
            states = self._workers.after(self._workers.counts())
        # A loader that skips batches has workers of its own.
        if is_first or self._skipped or not persist:
            starts = states if skipped or persist else None
            self._workers.renew(starts, 0 if self._is_stream else skipped * self._at_once)
            if persist and epoch and starts is not None and any(starts):
                # Had they never stopped, no seed of theirs would be drawn any more.
                self._base.generator = torch.Generator()
        self._earlier = self._workers.counts()
        self._pass_starts = states if persist else None
        super().begin_epoch(epoch, skipped, saved)

    def state(self) -> Saved:
        """Return what a checkpoint must hold, with the states of workers."""
        if self._is_stream:  # which is read from its beginning
            states = self._pass_starts
        else:
            counts = zip(self._earlier, self._batches(), strict=True)
            states = self._workers.after([earlier + now for earlier, now in counts])
        return super().state() | {"ahead": None, "workers": states}

    def _batches(self) -> list[int]:
        """Batches of this epoch that each worker has drawn and that were trained on."""
        number = self._base.num_workers
        first, end = (n * self._at_once for n in (self._skipped, self._trained))
        return [len(range(first + (w - first) % number, end, number)) for w in range(number)]
