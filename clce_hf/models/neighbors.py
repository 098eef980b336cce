"""Classify embeddings by those that are nearest to them."""

import torch
from torch import Tensor


def votes_that_fit(most: int, class_sizes: Tensor) -> int:
    """Return the largest number of voters that more than half of the classes have, or `most`.

    With more, images of other classes would outvote a class whatever the embeddings. The smaller of
    two classes decides; the smallest of several alone does not, since a single image of some class
    would leave one vote to all.

    Args:
        most: how many vote where classes are large enough.
        class_sizes: how many voters each class has, int64, shape (classes,), of at least one class.

    Returns:
        A number from 1 to `most`.
    """
    sizes = class_sizes.sort().values
    return max(1, min(most, int(sizes[(len(sizes) - 1) // 2])))


def majority_of_nearest(similarities: Tensor, classes: Tensor, k: int, num_classes: int) -> Tensor:
    """Return the class that most of the k most similar have; ties go to the smaller class.

    Args:
        similarities: floating point, shape (n, m); k of each row at least are above -inf.
        classes: of the m, int64 in [0, num_classes), shape (m,).
        k: how many vote, at most m.
        num_classes: number of classes.

    Returns:
        int64, shape (n,).
    """
    voters = classes[similarities.topk(k, dim=1).indices]
    votes = torch.zeros(len(similarities), num_classes, dtype=torch.int32, device=voters.device)
    return votes.scatter_add_(1, voters, torch.ones_like(voters, dtype=torch.int32)).argmax(1)
