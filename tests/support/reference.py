"""The loss in float64, written from the equations of arXiv 2402.14551 as plain double loops.

That for soft labels is written from docs/method.md.
"""

import math
from typing import Any

from torch import Tensor


def contrastive_reference(
    embeddings: Tensor,
    labels: list[int],
    temperature: float,
    beta: float,
    variant: str,
    num_anchors: int | None = None,
) -> Any:
    """Mean over the anchors that have a positive; exponentials are formed, so keep tau moderate.

    The first `num_anchors` rows are anchors, or all are.
    """
    rows = embeddings.double()
    anchors = []
    for i, label in enumerate(labels[:num_anchors]):
        positives = [j for j, other in enumerate(labels) if other == label and j != i]
        negatives = [j for j, other in enumerate(labels) if other not in (label, -100)]
        if label == -100 or not positives:
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


def soft_contrastive_reference(
    embeddings: Tensor,
    labels: list[list[float]],
    temperature: float,
    beta: float,
    variant: str,
    num_anchors: int | None = None,
) -> Any:
    """The same for class probabilities: pairs weigh by their agreement, and anchors up to 1."""
    rows = embeddings.double()
    total: Any = 0.0 * rows.sum()
    anchor_weight = 0.0
    for i in range(len(rows) if num_anchors is None else num_anchors):
        others = [j for j in range(len(rows)) if j != i]
        agreement = {
            j: sum(a * b for a, b in zip(labels[i], labels[j], strict=True)) for j in others
        }
        s = {
            j: (rows[i] @ rows[j]) / (rows[i].norm() * rows[j].norm()) / temperature for j in others
        }
        num_positives = sum(agreement.values())
        num_negatives = sum(1 - a for a in agreement.values())
        if num_positives == 0:
            continue
        positives: Any = sum(agreement[j] * s[j].exp() for j in others)
        partition = positives
        if num_negatives > 0:
            weight_total = sum((1 - agreement[j]) * (beta * s[j]).exp() for j in others)
            for j in others:
                weight = num_negatives * (beta * s[j]).exp() / weight_total
                partition = partition + (1 - agreement[j]) * weight * s[j].exp()
        if variant == "in":
            loss = -(positives / num_positives / partition).log()
        else:
            logs = [agreement[j] * (s[j].exp() / partition).log() for j in others]
            loss = -sum(logs) / num_positives
        total = total + min(num_positives, 1.0) * loss
        anchor_weight += min(num_positives, 1.0)
    return total / max(anchor_weight, 1.0)


def cross_entropy_reference(logits: Tensor, labels: list[int], smoothing: float) -> Any:
    """Mean over the samples of the cross-entropy against smoothed one-hot targets."""
    total: Any = 0.0
    for row, label in zip(logits.double(), labels, strict=True):
        log_partition = math.log(sum(math.exp(value - row.max()) for value in row)) + row.max()
        for k, value in enumerate(row):
            target = smoothing / len(row) + (1 - smoothing) * (k == label)
            total = total - target * (value - log_partition)
    return total / len(labels)
