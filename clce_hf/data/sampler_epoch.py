"""Tell the sampler its epoch, however deep Accelerate wraps it."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class SamplerEpoch(TrainerCallback):
    """Sets the epoch of the innermost sampler before each epoch.

    A run of several processes that resumes in the middle of an epoch has a sampler in a batch
    sampler in a shard in a batch sampler that skips; Accelerate 1.15 and Trainer do not reach that
    deep, and such a run would go on in the order of the first epoch.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Walk down the samplers and set the epoch of the last one."""
        sampler = getattr(train_dataloader, "batch_sampler", None)
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        sampler = getattr(sampler, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(int(state.epoch or 0))
