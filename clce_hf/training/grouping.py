"""Batches made of groups of images of one class, for a trainer."""

from typing import Any, cast

from torch import Tensor
from transformers import Trainer

from clce_hf.data.sampler import GroupByLabelSampler, SamplerEpoch
from clce_hf.training.checks import training_labels


def group_by_label(trainer: Trainer, dataset: Any, batch_size: int) -> GroupByLabelSampler:
    """Return the sampler of a trainer with `samples_per_class`, and tell it of each new epoch.

    Args:
        trainer: with the arguments of CLCE.
        dataset: to be sampled.
        batch_size: images per device.

    Raises:
        ValueError: if its labels cannot be read.
    """
    args: Any = trainer.args
    group_size: int = args.samples_per_class
    labels = cast(Tensor, training_labels(dataset, group_size, trainer.label_names))
    trainer.pop_callback(SamplerEpoch)  # of an earlier run
    trainer.add_callback(SamplerEpoch)
    seed = args.seed if args.data_seed is None else args.data_seed
    return GroupByLabelSampler(labels, group_size, batch_size, seed=seed)
