"""Resuming as if the run had never stopped: random transforms, order of images, memory.

Trainer restores the random generators of its process once the first batches are drawn. So these
batches, all that dataloader workers draw, and orders that are not seeded differ from those of a run
that never stopped. Here a checkpoint also holds how the batches of its epoch are drawn.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import TrainOutput, has_length

from clce_hf.training import checkpoints
from clce_hf.training.drawing import Drawing, DrawingHere, Saved
from clce_hf.training.memory import EmbeddingMemory
from clce_hf.training.worker_states import DrawingInWorkers

logger = logging.getLogger(__name__)

_DRAWING = "clce_drawing"
"""Key in the file that Trainer writes the states of generators to, and reads only its own from."""


class ResumingTrainer(Trainer):
    """Trainer that resumes exactly; a run that never stops is Trainer's, bit by bit."""

    _memory: EmbeddingMemory | None
    _drawing: Drawing | None = None
    _left_off: Saved | None = None
    _has_loaded = False

    def _inner_training_loop(self, *args: Any, **named: Any) -> TrainOutput:
        try:
            return super()._inner_training_loop(*args, **named)
        finally:
            self._drawing = self._left_off = None

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        num_train_epochs: int,
        resume_from_checkpoint: str | None,
        trial: Any,
    ) -> tuple[int, int]:
        trained = super()._init_training_state(
            max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, trial
        )
        self._checkpoint, self._left_off, self._has_loaded = resume_from_checkpoint, None, False
        if resume_from_checkpoint is not None:
            file = self._rng_file(resume_from_checkpoint)
            self._left_off = _read(file).get(_DRAWING) if file.is_file() else None
        self._evaluated = set(() if self._left_off is None else self._left_off["evaluated"])
        has_no_length = not has_length(cast(Any, self.train_dataset))
        if self._left_off is not None and has_no_length and not self.args.ignore_data_skip:
            # Trainer takes all passes over a stream for one, and skips more than a pass holds.
            return self._left_off["epoch"], self._left_off["batches"]
        return trained

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None
    ) -> Any:
        model, loader = super()._prepare_for_training(
            max_steps, train_dataloader, resume_from_checkpoint
        )
        self._drawing = _watch(loader)
        return model, loader

    def _run_epoch(self, *unnamed: Any, **named: Any) -> None:
        if self._drawing is not None:
            epoch, saved, skipped = named["epoch"], None, 0
            if epoch == named["epochs_trained"] and named["resume_from_checkpoint"] is not None:
                skipped = named["steps_trained_in_current_epoch"]
                saved = self._saved_for(epoch, skipped)
            self._drawing.begin_epoch(epoch, skipped, saved)
        super()._run_epoch(*unnamed, **named)

    def _saved_for(self, epoch: int, skipped: int) -> Saved | None:
        """Return what the checkpoint holds if it is of this place in the data, else warn."""
        saved, file = self._left_off, self._rng_file(cast(str, self._checkpoint))
        settings = {} if saved is None else saved["settings"]
        changed = settings.items() - self._drawing_settings.items()
        if saved is None:
            reason = (
                f"does not tell in {file.name} how images are drawn: it was saved by stock "
                "Trainer, with save_only_model, or by another number of processes"
            )
        elif changed:
            reason = (
                f"was saved with {', '.join(f'{name}={value}' for name, value in sorted(changed))}"
            )
        elif skipped and (saved["epoch"], saved["batches"]) != (epoch, skipped):
            reason = "is of another place in the data: a callback had ended an epoch early"
        else:
            return saved
        needed = skipped or self.args.dataloader_persistent_workers
        if needed and not self.args.ignore_data_skip and self.is_world_process_zero():
            logger.warning(
                f"The checkpoint {file.parent.name} {reason}. Random transforms of images differ "
                "from those of a run that never stopped."
            )
        return None

    @property
    def _drawing_settings(self) -> dict[str, int]:
        args = self.args
        return {
            "per_device_train_batch_size": self._train_batch_size,
            "gradient_accumulation_steps": args.gradient_accumulation_steps,
            "dataloader_num_workers": args.dataloader_num_workers,
            "world_size": args.world_size,
        }

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Collect the batches of a step; in a run that resumes, as if it had never stopped."""
        if self._drawing is None:
            return super().get_batch_samples(epoch_iterator, num_batches, device)
        with self._drawing.drawing(self._load_between_batches):
            samples = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._drawing.add_trained(len(samples[0]))
        return samples

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Return Trainer's loader, whose workers draw no second seed where they persist."""
        loader = super().get_eval_dataloader(eval_dataset)
        if self.is_in_train and self.args.dataloader_persistent_workers:
            name = eval_dataset if isinstance(eval_dataset, str) else "eval"
            if name in self._evaluated and hasattr(loader, "base_dataloader"):
                cast(Any, loader).base_dataloader.generator = torch.Generator()
            self._evaluated.add(name)
        return loader

    def _load_between_batches(self) -> None:
        super()._load_rng_state(self._checkpoint)
        self._has_loaded = True

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if not self._has_loaded:
            super()._load_rng_state(checkpoint)
        self._has_loaded = False
        if checkpoint is not None:
            checkpoints.load_memory(self, self._memory, checkpoint, self._gathers)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        checkpoints.save_memory(self, self._memory, output_dir, self._gathers)
        if self._drawing is not None and self._drawing.has_begun:
            others = {"evaluated": sorted(self._evaluated), "settings": self._drawing_settings}
            file = self._rng_file(output_dir)
            torch.save(_read(file) | {_DRAWING: self._drawing.state() | others}, file)

    @property
    def _gathers(self) -> bool:
        return cast(Any, self.args).gather_across_devices

    def _rng_file(self, folder: str) -> Path:
        suffix = "" if self.args.world_size <= 1 else f"_{self.args.process_index}"
        return Path(folder, f"rng_state{suffix}.pth")


def _read(file: Path) -> dict[str, Any]:
    with safe_globals():
        return torch.load(file, weights_only=True)


def _watch(loader: Any) -> Drawing | None:
    """Watch a loader of training batches; None for one that Accelerate has not prepared."""
    base = getattr(loader, "base_dataloader", None)
    if not isinstance(base, DataLoader):
        return None
    return DrawingInWorkers(loader, base) if base.num_workers else DrawingHere(loader, base)
