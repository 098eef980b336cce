"""The contrastive sum, walked over blocks of every kind."""

import itertools

from clce_hf.loss.contrastive import Blocking, contrastive_sum
from clce_hf.loss.unit_length import to_unit_length


def in_every_blocking(embeddings, labels, beta, variant):
    """The sum and its gradient in blocks of one, of some and of all anchors."""
    results = []
    for rows, keeps_slopes in itertools.product((1, 4, len(labels)), (False, True)):
        leaf = embeddings.clone().requires_grad_()
        blocking = Blocking(rows, keeps_slopes)
        keys, anchors = to_unit_length(leaf), range(len(labels))
        loss = contrastive_sum(keys, labels, anchors, 0.5, beta, variant, blocking=blocking)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    return results
