"""How well images of a class find each other by their embeddings."""

import numpy as np
import torch
from torch import Tensor

from clce_hf.evaluation.points import blocks, check_embeddings, labeled_points
from clce_hf.loss.unit_length import to_unit_length

RETRIEVAL_BLOCK_ELEMENTS = 2**23
"""Similarities in a block by default: 32 MiB in float32, and several times that while ranked."""

_LARGEST_K = 5


@torch.no_grad()
def retrieval_metrics(
    embeddings: Tensor, labels: Tensor, *, block_elements: int = RETRIEVAL_BLOCK_ELEMENTS
) -> dict[str, float]:
    """Recall at 1 and 5, R-precision and mAP@R, where each image searches for others of its class.

    Musgrave et al., arXiv 2003.08505: each image is a query, and all others are ranked by cosine
    similarity. `recall_at_1` and `recall_at_5` are the shares of queries with an image of their
    class among the 1 and 5 nearest. With R others of its class, a query's `r_precision` is their
    share among the R nearest, and its `map_at_r` the mean over the R nearest of the precision up to
    there, 0 where the image is of another class. As pytorch-metric-learning's `AccuracyCalculator`
    has them, queries whose class has no other image are left out, and found by others all the same.

    Where similarities are equal, as those of duplicates, images of other classes come first. So
    the order of the rows does not matter, and embeddings that are all equal find nothing.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,); rows labeled -100 are left out.
        block_elements: similarities that are held at a time.

    Returns:
        The four means over the queries, each in [0, 1].

    Raises:
        ValueError: for wrong shapes, embeddings that are not finite, or no class with two images.
    """
    points, classes = labeled_points(embeddings, labels)
    # Rows of a class side by side, so that it is a range of columns; rows of single images last.
    sizes = classes.bincount()
    order = (sizes[classes] * len(sizes) + classes).argsort(descending=True, stable=True)
    points, classes = points[order], classes[order]
    num_relevant = sizes[classes] - 1
    num_queries = int((num_relevant > 0).sum())
    if num_queries == 0:
        raise ValueError(
            "Retrieval needs a class with two images: no image has another of its class to find."
        )
    totals = torch.zeros(4, dtype=torch.float64)
    for rows in blocks(points[:num_queries], len(points), block_elements):
        ranks = _ranks(points, classes, num_relevant, rows)
        totals += _sums(ranks, num_relevant[rows].cpu())
    names = ("recall_at_1", f"recall_at_{_LARGEST_K}", "r_precision", "map_at_r")
    return dict(zip(names, (totals / num_queries).tolist(), strict=True))


@torch.no_grad()
def nearest_others(embeddings: Tensor, rows: Tensor, k: int = 5) -> Tensor:
    """The rows that are nearest to some rows by cosine similarity, themselves left out.

    Args:
        embeddings: floating point, shape (n, d).
        rows: of the queries, integers, shape (m,); m similarities of each row are held at a time.
        k: how many; n - 1 where there are no more.

    Returns:
        int64, shape (m, k), the nearest first; where similarities are equal, the first row.

    Raises:
        ValueError: for wrong shapes, or embeddings that are not finite.
    """
    check_embeddings(embeddings, least=2)
    points = to_unit_length(embeddings)
    similarities = points[rows] @ points.T
    similarities.scatter_(1, rows[:, None], -torch.inf)
    nearest = similarities.argsort(dim=1, descending=True, stable=True)
    return nearest[:, : min(k, len(points) - 1)]


def _ranks(points: Tensor, classes: Tensor, num_relevant: Tensor, rows: slice) -> Tensor:
    """At which place each query finds the first, second, ... other image of its class.

    Places beyond R and 5 are only known to be beyond.

    Args:
        points: shape (n, d), sorted by class.
        classes: shape (n,).
        num_relevant: R of each row, shape (n,), descending.
        rows: the queries.

    Returns:
        int64, shape (queries, largest R), ascending; beyond a query's own R where it has none.
    """
    distances = -points[rows] @ points.T
    distances.diagonal(rows.start).fill_(torch.inf)  # no image finds itself
    # Columns of the classes of these rows: from the first row of the first to the last of the last.
    first = int((classes == classes[rows.start]).nonzero()[0])
    last = int((classes == classes[rows.stop - 1]).nonzero()[-1])
    of_class = distances[:, first : last + 1]
    is_relevant = classes[rows, None] == classes[first : last + 1]
    most = int(num_relevant[rows.start])
    relevant = np.sort(of_class.where(is_relevant, torch.inf).cpu().numpy(), axis=1)[:, :most]
    of_class.masked_fill_(is_relevant, torch.inf)
    others = _smallest(distances.cpu().numpy(), max(most, _LARGEST_K))
    # Equal distances count as before.
    num_before = torch.searchsorted(others, torch.from_numpy(relevant).contiguous(), right=True)
    return num_before + torch.arange(1, most + 1)


def _smallest(values: np.ndarray, count: int) -> Tensor:
    """The smallest values of each row, ascending; `values` are reordered.

    Torch's `topk` gives their places, too, and takes up to eight times as long.
    """
    count = min(count, values.shape[1])
    values.partition(count - 1, axis=1)
    return torch.from_numpy(np.sort(values[:, :count], axis=1))


def _sums(ranks: Tensor, num_relevant: Tensor) -> Tensor:
    """Sums over queries of recall at 1 and 5, R-precision and mAP@R, float64, shape (4,)."""
    is_found = ranks <= num_relevant[:, None]
    precision = torch.arange(1, ranks.shape[1] + 1) / ranks.double()
    return torch.stack(
        [
            (ranks[:, 0] <= 1).sum(),
            (ranks[:, 0] <= _LARGEST_K).sum(),
            (is_found.sum(1) / num_relevant.double()).sum(),
            ((precision * is_found).sum(1) / num_relevant).sum(),
        ]
    )
