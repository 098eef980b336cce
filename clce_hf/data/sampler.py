"""Order a data set so that every batch is made of groups of images of one class."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class GroupByLabelSampler(Sampler[int]):
    """Yield indices in groups of `samples_per_class` images of one class.

    Consecutive runs of `batch_size` indices are whole groups, so a batch sampler over this one
    gives every anchor at least `samples_per_class - 1` positives. Every image comes at least once
    per epoch: the last group of a class is filled up with other images of the class, and a class
    smaller than a group repeats its images.

    A batch draws its classes by their shares of the groups left, so class frequencies are those of
    the data set throughout the epoch. As long as others are left, no class has more groups in a
    batch than its share of the data set, rounded up: where classes are many or alike, all groups
    of a batch are of different classes.

    The order is a function of (seed, epoch) alone, the same in every process: Accelerate shards
    the batches and forwards `set_epoch`.

    Args:
        labels: integer class ids, shape (n,), one per index of the data set.
        samples_per_class: images in a group, at least 2.
        batch_size: images in a batch of one device, a multiple of `samples_per_class`.
        seed: of the order.

    Raises:
        ValueError: if `samples_per_class` is below 2 or does not divide `batch_size`, or if there
            are fewer than two classes.
    """

    def __init__(
        self, labels: Tensor, samples_per_class: int, batch_size: int, seed: int = 0
    ) -> None:
        check_group_size(samples_per_class, batch_size)
        classes, class_of = torch.as_tensor(labels).unique(return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"samples_per_class needs at least two classes to contrast, got {len(classes)}."
            )
        order = class_of.argsort(stable=True)
        self._members = order.split(class_of.bincount().tolist())
        self._samples_per_class = samples_per_class
        self._groups_per_batch = batch_size // samples_per_class
        self._group_counts = torch.tensor([-(-len(m) // samples_per_class) for m in self._members])
        shares = self._groups_per_batch * self._group_counts
        self._max_groups_per_batch = -(-shares // self._group_counts.sum())
        self._seed = seed
        self._epoch = 0
        small = sum(len(members) < samples_per_class for members in self._members)
        if small:
            warnings.warn(
                f"{small} of {len(classes)} classes have fewer than samples_per_class="
                f"{samples_per_class} images: these repeat within a group.",
                stacklevel=2,
            )

    def set_epoch(self, epoch: int) -> None:
        """Select the order of this epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return int(self._group_counts.sum()) * self._samples_per_class

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator()
        # Neighboring seeds and epochs must not share orders, as seed + epoch would make them.
        sequence = np.random.SeedSequence((self._epoch, self._seed % 2**64))
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        groups = [iter(self._shuffled_groups(members, generator)) for members in self._members]
        for class_index in self._class_sequence(generator):
            yield from next(groups[class_index])

    def _shuffled_groups(self, members: Tensor, generator: torch.Generator) -> list[list[int]]:
        """Cut one class into groups at random, the last one topped up."""
        size = self._samples_per_class
        shuffled = members[torch.randperm(len(members), generator=generator)]
        missing = -len(members) % size
        # The first images are in other groups, unless the class has only this one.
        topped_up = torch.cat([shuffled, shuffled.repeat(-(-missing // len(members)))[:missing]])
        return topped_up.view(-1, size).tolist()

    def _class_sequence(self, generator: torch.Generator) -> list[int]:
        """Class of each group of the epoch, batch after batch."""
        left = self._group_counts.clone()
        sequence: list[int] = []
        while total := int(left.sum()):
            order = torch.randperm(len(left), generator=generator)
            room = min(self._groups_per_batch, total)
            drawn = order.repeat_interleave(
                _draw_by_share(left[order], self._max_groups_per_batch[order], room, generator)
            )
            left -= drawn.bincount(minlength=len(left))
            sequence += drawn.tolist()
        return sequence


def _draw_by_share(left: Tensor, most: Tensor, room: int, generator: torch.Generator) -> Tensor:
    """Return how many groups of each class a batch gets, at most `most` while others are left."""
    counts = torch.zeros_like(left)
    while missing := room - int(counts.sum()):
        free = torch.minimum(left, most) - counts
        if not free.any():
            free = left - counts
        # Systematic sampling: points at equal distances on the groups left, laid end to end by
        # class. In whole numbers, so that no class is ever drawn more often than it has groups.
        ends = (left - counts).where(free > 0, 0).cumsum(0)
        total = int(ends[-1])
        points = torch.randint(total, (1,), generator=generator) + total * torch.arange(missing)
        drawn = torch.searchsorted(missing * ends, points, right=True)
        counts += torch.minimum(drawn.bincount(minlength=len(left)), free)
    return counts


class SamplerEpoch(TrainerCallback):
    """Sets the epoch of the innermost sampler before each epoch.

    Accelerate 1.15 and Trainer stop above it where a run of several processes resumes in the middle
    of an epoch: there the sampler is inside a batch sampler, inside a shard, inside a batch sampler
    that skips. Such a run would continue in the order of the first epoch.
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


def check_group_size(samples_per_class: int, batch_size: int) -> None:
    """Raise `ValueError` unless whole groups of at least two images fill a batch."""
    if samples_per_class < 2:
        raise ValueError(
            f"samples_per_class must be at least 2, so that an image has a positive, got "
            f"{samples_per_class}; None uses Trainer's own sampler."
        )
    if batch_size % samples_per_class:
        raise ValueError(
            f"samples_per_class={samples_per_class} must divide the batch size of a device, "
            f"{batch_size}: change samples_per_class or per_device_train_batch_size."
        )
