"""A few training images of each class, drawn by seed."""

from collections.abc import Sequence

import torch
from torch import Tensor


def low_shot_rows(labels: Tensor, shots: int, seed: int, names: Sequence[str] = ()) -> list[int]:
    """Rows of `shots` images of each class, drawn at random, in ascending order.

    With the same seed, the rows of fewer shots are among those of more.

    Args:
        labels: integers, shape (n,).
        shots: images of each class.
        seed: decides the images.
        names: of the classes, for the error.

    Raises:
        ValueError: if `shots` is not positive, or a class has fewer images.
    """
    if shots < 1:
        raise ValueError(f"shots must be positive, got {shots}.")
    classes, sizes = labels.unique(return_counts=True)
    if int(sizes.min()) < shots:
        smallest = int(classes[sizes.argmin()])
        raise ValueError(
            f"{shots} shots need {shots} training images of each class, but class "
            f"{names[smallest] if names else smallest} has {int(sizes.min())}."
        )
    return rows_of_each_class(labels, shots, seed).sort().values.tolist()


def rows_of_each_class(labels: Tensor, most: int, seed: int) -> Tensor:
    """Rows of at most `most` images of each class, drawn at random, in a random order.

    Args:
        labels: integers, shape (n,).
        most: images of each class.
        seed: decides the images.

    Returns:
        int64, shape (m,).
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    grouped, places = labels[order].sort(stable=True)
    sizes = grouped.unique_consecutive(return_counts=True)[1]
    number_in_class = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return order[places[number_in_class < most].sort().values]
