"""Embeddings as points of length 1 with their classes, and blocks of them: for metrics of pairs."""

from collections.abc import Iterator

from torch import Tensor

from clce_hf.loss.targets import IGNORE_INDEX
from clce_hf.loss.unit_length import to_unit_length

BLOCK_ELEMENTS = 2**22
"""Numbers in a block by default: 16 MiB in float32."""


def check_embeddings(embeddings: Tensor, least: int) -> None:
    """Raise `ValueError` unless there are that many embeddings at least, all of them finite."""
    if embeddings.dim() != 2 or len(embeddings) < least:
        raise ValueError(
            f"embeddings must have shape (n, d) with n at least {least}, got "
            f"{tuple(embeddings.shape)}."
        )
    num_broken = len(embeddings) - int(embeddings.isfinite().all(1).sum())
    if num_broken:
        is_all = num_broken == len(embeddings)
        raise ValueError(
            f"embeddings must be finite, but {num_broken} of {len(embeddings)} rows hold NaN or "
            "infinity: "
            + (
                "the model that they are of has diverged, so train it with a lower learning_rate."
                if is_all
                else "look at what these rows are of, and leave them out."
            )
        )


def labeled_points(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit-length embeddings that have a label, and their classes, numbered from 0.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,); rows labeled -100 are left out.

    Raises:
        ValueError: for wrong shapes, fewer than two embeddings, or some that are not finite.
    """
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"labels must have shape ({len(embeddings)},), one per embedding, got "
            f"{tuple(labels.shape)}."
        )
    has_label = labels != IGNORE_INDEX
    points = embeddings[has_label]
    check_embeddings(points, least=2)
    return to_unit_length(points), labels[has_label].unique(return_inverse=True)[1]


def blocks(points: Tensor, width: int, block_elements: int) -> Iterator[slice]:
    """Blocks of rows that make about `block_elements` numbers where each row makes `width`."""
    rows = max(1, block_elements // width)
    for start in range(0, len(points), rows):
        yield slice(start, min(start + rows, len(points)))
