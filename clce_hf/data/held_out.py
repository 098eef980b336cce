"""Hold out a share of the images of each class."""

import math
from typing import cast

import numpy as np
from datasets import Dataset
from datasets.utils.stratify import stratified_shuffle_split_generate_indices
from torch import Tensor

from clce_hf.data.class_counts import class_counts
from clce_hf.data.labels import read_labels
from clce_hf.errors import ArgumentError, abbreviate


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return the rows that a stratified `Dataset.train_test_split` returns.

    It reads the labels row by row, which takes minutes for a million.

    Args:
        dataset: with columns `image` and `labels`, of class ids.
        share: of the rows, in (0, 1).
        seed: decides the rows.

    Returns:
        The images to train on, and those that are held out.

    Raises:
        ArgumentError: if the share is out of its range, or too small or too large for the number
            of classes, or a class has one image only; the message names them.
    """
    if not 0 < share < 1:
        raise ArgumentError(
            "held_out_share",
            f"got {share}, but it must lie in (0, 1) where no images to evaluate on are named: "
            "give a validation_dir or a share of the training images.",
        )
    counts = {name: count for name, count in class_counts(dataset).items() if count}
    single = [name for name, count in counts.items() if count == 1]
    held_out = math.ceil(share * len(dataset))
    if single:
        raise _cannot(
            share,
            f"of {abbreviate(single)} there is one image only. Give every class two images or more",
        )
    if min(held_out, len(dataset) - held_out) < len(counts):
        raise _cannot(
            share,
            f"that leaves {len(dataset) - held_out:,} images to train and {held_out:,} to evaluate "
            f"on, for {len(counts):,} classes. Give them more images, change the share",
        )
    labels = cast(Tensor, read_labels(dataset)).numpy()
    drawn = stratified_shuffle_split_generate_indices(
        labels, len(dataset) - held_out, held_out, np.random.default_rng(seed), n_splits=1
    )
    train, other = next(drawn)
    return dataset.select(train), dataset.select(other)


def _cannot(share: float, why: str) -> ArgumentError:
    return ArgumentError(
        "held_out_share",
        f"A share of {share} of each class cannot be held out: {why}, or name images to evaluate "
        "on.",
    )
