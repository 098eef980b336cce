"""The first few training images of each class, drawn by seed."""

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
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rows = [order[labels[order] == label][:shots] for label in classes]
    return torch.cat(rows).sort().values.tolist()
