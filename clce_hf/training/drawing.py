"""How the batches of an epoch are drawn, as far as a run that resumes in it must know."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from clce_hf.training.random_state import RandomState, random_state, set_random_state

Saved = dict[str, Any]
"""What a checkpoint holds of the drawing of batches."""


class Drawing:
    """The generators as they were where the epoch began, before its loader drew anything.

    From there, the loader draws the seed of its workers, and some samplers draw the order.

    Args:
        loader: of training batches, not yet iterated over.
        base: torch's, within `loader`.
    """

    def __init__(self, loader: Any, base: DataLoader) -> None:
        self._base = base
        self._batch_sampler = loader.batch_sampler
        self._is_stream = isinstance(base.dataset, IterableDataset)
        # Accelerate's dispatcher draws the batches of all processes in the first one.
        gathers = hasattr(loader, "split_batches") and not loader.split_batches
        self._at_once: int = loader.state.num_processes if gathers else 1
        self._epoch: int | None = None
        self._skipped = self._trained = 0
        self._saved: Saved | None = None
        self._start: RandomState | None = None
        self._sampler_start: torch.Tensor | None = None

    def fits(self, saved: Saved, epoch: int, skipped: int) -> bool:
        """Whether `saved` is of this place in the data, and of as many workers."""
        is_here = not skipped or (saved["epoch"], saved["batches"]) == (epoch, skipped)
        return is_here and saved["num_workers"] == self._base.num_workers

    def begin_epoch(self, epoch: int, skipped: int, saved: Saved | None) -> None:
        """Take note of a new epoch, before its loader is made.

        Args:
            epoch: its number.
            skipped: batches that the run had trained on when it stopped in this epoch.
            saved: `state` where it stopped; None in later epochs, or if it is not known.
        """
        self._epoch, self._skipped, self._trained = epoch, skipped, skipped
        self._saved, self._start = saved if skipped else None, None

    @contextlib.contextmanager
    def drawing(self, load: Callable[[], None]) -> Iterator[None]:
        """Draw batches within: in a run that resumes, as if it had never stopped.

        Args:
            load: restores the generators as they were when the run stopped.
        """
        with contextlib.ExitStack() as stack:
            if self._start is None:
                if self._saved is not None:
                    set_random_state(self._saved["start"])
                    self._place_sampler(self._saved["sampler"])
                    self._resume(self._saved, load, stack)
                self._start = random_state()
                generator = getattr(self._sampler, "generator", None)
                self._sampler_start = None if generator is None else generator.get_state()
            yield

    def add_trained(self, batches: int) -> None:
        """Count batches that are trained on."""
        self._trained += batches

    @property
    def has_begun(self) -> bool:
        """Whether batches of this epoch were drawn within `drawing`."""
        return self._start is not None

    def state(self) -> Saved:
        """Return what a checkpoint must hold, once the epoch has begun."""
        return {
            "epoch": self._epoch,
            "batches": self._trained,
            "num_workers": self._base.num_workers,
            "start": self._start,
            "sampler": self._sampler_start,
        }

    def _resume(self, saved: Saved, load: Callable[[], None], stack: contextlib.ExitStack) -> None:
        """Arrange for what must happen while the first batches are drawn."""

    @property
    def _sampler(self) -> Any:
        return getattr(self._innermost, "sampler", None)

    @property
    def _innermost(self) -> Any:
        """The batch sampler that holds the sampler; streams have none that is used."""
        batch_sampler = self._batch_sampler
        while hasattr(batch_sampler, "batch_sampler"):
            batch_sampler = batch_sampler.batch_sampler
        return batch_sampler

    def _place_sampler(self, state: torch.Tensor | None) -> None:
        sampler = self._sampler
        # Accelerate and Trainer do not reach it through two wrappers, of a shard and a skip.
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._epoch)
        if (generator := getattr(sampler, "generator", None)) is not None and state is not None:
            generator.set_state(state)


class DrawingHere(Drawing):
    """Batches drawn by the process that trains, from the generators of dropout, one ahead."""

    def __init__(self, loader: Any, base: DataLoader) -> None:
        super().__init__(loader, base)
        self._collate, base.collate_fn = base.collate_fn, self._collate_and_note
        self._now: RandomState | None = None

    def begin_epoch(self, epoch: int, skipped: int, saved: Saved | None) -> None:
        """Take note of a new epoch, as `Drawing` does."""
        super().begin_epoch(epoch, skipped, saved)
        self._drawn = 0
        self._after: dict[int, Callable[[], None]] = {}
        self._ahead: RandomState | None = None
        """Before the batch that was drawn last."""

    @contextlib.contextmanager
    def drawing(self, load: Callable[[], None]) -> Iterator[None]:
        """Draw batches within, as `Drawing` does; `load` is called when the first one is drawn."""
        with super().drawing(load):
            self._now = random_state()
            yield

    def state(self) -> Saved:
        """Return what a checkpoint must hold, with the state before the batch drawn ahead."""
        return super().state() | {"ahead": self._ahead, "workers": None}

    def _resume(self, saved: Saved, load: Callable[[], None], stack: contextlib.ExitStack) -> None:
        if saved["ahead"] is None:
            return
        # The batch that had been drawn ahead, then `load`, then those that had not been drawn yet.
        draw_ahead = functools.partial(set_random_state, saved["ahead"])
        if self._is_stream:
            skipped = self._skipped * self._at_once
            self._after = {skipped: draw_ahead, skipped + self._at_once: load}
        else:
            stack.enter_context(_after_first_index(self._innermost, draw_ahead))
            self._after = {self._at_once: load}

    def _collate_and_note(self, rows: list[Any]) -> Any:
        batch = self._collate(rows)
        if self._drawn % self._at_once == 0:
            self._ahead = self._now
        self._drawn += 1
        if (then := self._after.pop(self._drawn, None)) is not None:
            then()
        self._now = random_state()
        return batch


@contextlib.contextmanager
def _after_first_index(batch_sampler: Any, then: Callable[[], None]) -> Iterator[None]:
    """Call `then` between the sampler's drawing of an order and the reading of the first image."""
    sampler = batch_sampler.sampler

    def indices() -> Iterator[int]:
        for place, index in enumerate(sampler):
            if place == 0:
                then()
            yield index

    batch_sampler.sampler = indices()
    try:
        yield
    finally:
        batch_sampler.sampler = sampler
