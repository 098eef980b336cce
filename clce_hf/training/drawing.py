"""How the batches of an epoch are drawn, as far as a run that resumes in it must know."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

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

    def begin_epoch(self, epoch: int, skipped: int, saved: Saved | None) -> None:
        """Take note of a new epoch, before its loader is made.

        Args:
            epoch: its number.
            skipped: batches that the run had trained on when it stopped in this epoch.
            saved: `state` where it stopped; None in later epochs, or if it is not known.
        """
        self._epoch, self._skipped, self._trained = epoch, skipped, skipped
        self._saved, self._start = saved, None

    @contextlib.contextmanager
    def drawing(self, load: Callable[[], None]) -> Iterator[None]:
        """Draw batches within: in a run that resumes, as if it had never stopped.

        Args:
            load: restores the generators as they were when the run stopped.
        """
        with contextlib.ExitStack() as stack:
            if self._start is None:
                if self._saved is not None:
                    self._resume(self._saved, load, stack)
                self._start, self._sampler_start = random_state(), self._sampler_state()
            yield

    def _resume(self, saved: Saved, load: Callable[[], None], stack: contextlib.ExitStack) -> None:
        sampler = self._sampler
        # Accelerate and Trainer do not reach it through two wrappers, of a shard and a skip.
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._epoch)
        state = saved["sampler_start" if self._skipped else "sampler"]
        if state is not None and self._sampler_state() is not None:
            sampler.generator.set_state(state)
        if self._skipped:
            set_random_state(saved["start"])
            then = self._draw_ahead(saved, load)
            if isinstance(self._innermost, BatchSampler) and not self._is_stream:
                stack.enter_context(self._order(then))

    def _draw_ahead(self, saved: Saved, load: Callable[[], None]) -> Callable[[], None] | None:
        """Return what is to be done between the drawing of the order and the first image."""

    @contextlib.contextmanager
    def _order(self, then: Callable[[], None] | None) -> Iterator[None]:
        batch_sampler = self._innermost
        sampler = batch_sampler.sampler
        # Accelerate skips so many batches of one process, although each was one of every process.
        done = (self._at_once - 1) * self._skipped * batch_sampler.batch_size

        def indices() -> Iterator[int]:
            for place, index in enumerate(sampler):
                if place == 0 and then is not None:
                    then()
                if place >= done:
                    yield index

        batch_sampler.sampler = indices()
        try:
            yield
        finally:
            batch_sampler.sampler = sampler

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
            "start": self._start,
            "sampler_start": self._sampler_start,
            "sampler": self._sampler_state(),
        }

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

    def _sampler_state(self) -> torch.Tensor | None:
        generator = getattr(self._sampler, "generator", None)
        return None if generator is None else generator.get_state()


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

    def _draw_ahead(self, saved: Saved, load: Callable[[], None]) -> Callable[[], None] | None:
        if saved["ahead"] is None:
            return None
        # The batch that had been drawn ahead, then `load`, then those that had not been drawn yet.
        draw_ahead = functools.partial(set_random_state, saved["ahead"])
        if not self._is_stream:
            self._after = {self._at_once: load}
            return draw_ahead
        skipped = self._skipped * self._at_once
        self._after = {skipped: draw_ahead, skipped + self._at_once: load}
        return None

    def _collate_and_note(self, rows: list[Any]) -> Any:
        batch = self._collate(rows)
        if self._drawn % self._at_once == 0:
            self._ahead = self._now
        self._drawn += 1
        if (then := self._after.pop(self._drawn, None)) is not None:
            then()
        self._now = random_state()
        return batch
