"""The contrastive sum, walked over blocks of every kind."""

import itertools

from clce_hf.loss.contrastive import Blocking, contrastive_sum
from clce_hf.loss.unit_length import to_unit_length


def in_every_blocking(embeddings, labels, beta, variant, constant_keys=None):
    """The sum and its gradient in blocks of one, of some and of all anchors.

    The labels are those of the embeddings and then of the constant keys.
    """
    results, n = [], len(embeddings)
    may_keep_slopes = (False, True) if constant_keys is None else (False,)
    for rows, keeps_slopes in itertools.product((1, 4, n), may_keep_slopes):
        leaf = embeddings.clone().requires_grad_()
        loss = contrastive_sum(
            to_unit_length(leaf),
            labels,
            range(n),
            0.5,
            beta,
            variant,
            constant_keys,
            Blocking(rows, keeps_slopes),
        )
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    return results
