"""The loss in float64, written from the equations of arXiv 2402.14551 as plain double loops."""

import math
from typing import Any

from torch import Tensor


def contrastive_reference(
    embeddings: Tensor, labels: list[int], temperature: float, beta: float, variant: str
) -> Any:
    """Mean over the anchors that have a positive; exponentials are formed, so keep tau moderate."""
    rows = embeddings.double()
    anchors = []
    for i, label in enumerate(labels):
        positives = [j for j, other in enumerate(labels) if other == label and j != i]
        negatives = [j for j, other in enumerate(labels) if other != label]
        if not positives:
            continue

        def similarity(j: int, i: int = i) -> Tensor:
            return (rows[i] @ rows[j]) / (rows[i].norm() * rows[j].norm()) / temperature

        partition: Any = sum(similarity(p).exp() for p in positives)
        if negatives:
            weight_total = sum((beta * similarity(m)).exp() for m in negatives)
            for n in negatives:
                weight = len(negatives) * (beta * similarity(n)).exp() / weight_total
                partition = partition + weight * similarity(n).exp()
        if variant == "in":
            mean: Any = sum(similarity(p).exp() for p in positives) / len(positives)
            anchors.append(-(mean / partition).log())
        else:
            logs = [(similarity(p).exp() / partition).log() for p in positives]
            anchors.append(-sum(logs) / len(positives))
    return sum(anchors) / len(anchors) if anchors else 0.0 * rows.sum()


def cross_entropy_reference(logits: Tensor, labels: list[int], smoothing: float) -> Any:
    """Mean over the samples of the cross-entropy against smoothed one-hot targets."""
    total: Any = 0.0
    for row, label in zip(logits.double(), labels, strict=True):
        log_partition = math.log(sum(math.exp(value - row.max()) for value in row)) + row.max()
        for k, value in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (k == label)
            total = total - target * (value - log_partition)
    return total / len(labels)
