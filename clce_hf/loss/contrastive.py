"""The label-aware contrastive sum and its gradient, walked in blocks of anchors.

Source: LACLN of Long et al., arXiv 2402.14551; the hard-negative weights follow Robinson et al.,
arXiv 2010.04592, the two placements of the mean over positives Khosla et al., arXiv 2004.11362
(L_in and L_out).

For anchor i with positives P (same label, not i itself), negatives N (another label) and
s_ij = z_i . z_j / temperature, z the embedding scaled to length 1:

    w_in   = |N| exp(beta s_in) / sum_{m in N} exp(beta s_im)
    "in"   : loss_i = -log( 1/|P| sum_{p in P} exp(s_ip) / Z_i )
    "out"  : loss_i = -1/|P| sum_{p in P} log( exp(s_ip) / Z_i )
    Z_i    = sum_{p in P} exp(s_ip) + sum_{n in N} w_in exp(s_in)

For class probabilities, every sum over P weighs pair ij by its agreement a_ij, every sum over N by
1 - a_ij, |P| and |N| are the sums of these, and loss_i is multiplied by min(|P|, 1). This is our
extension; with one-hot labels it equals the formula above, bit by bit.

Everything is computed in log space, where the weighted negatives are
log|N| + LSE_n((1 + beta) s_in) - LSE_n(beta s_in). The gradient with respect to s is known in
closed form, so the similarities of a block of anchors are computed once, for loss and gradient
together, and a few buffers of a block's size serve all blocks. Where every key is an anchor and the
n x n slopes (the derivatives with respect to s) are few enough, they are kept: added to their
transpose, they need one matrix product with the keys instead of two, and each similarity is
computed for one of its two anchors.

Constant keys, such as embeddings of past batches (cross-batch memory, Wang et al., arXiv
1912.06798), are contrasted with like the others, but have no gradient, and none is computed.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from clce_hf.loss.anchor_losses import anchor_losses
from clce_hf.loss.hyperparameters import Variant
from clce_hf.loss.targets import is_labeled

_BLOCK_ELEMENTS = 2**21
"""Similarities in a block: 8 MiB in float32, which stays in a CPU's last-level cache."""

_MIN_BLOCK_ROWS = 64
"""Fewest anchors in a block: with fewer, reading all embeddings for it would dominate."""

_MAX_KEPT_SLOPES = 2**24
"""The largest number of slopes to keep, 64 MiB in float32: those of 4,096 keys."""

_PADDING = 16
"""Unused entries at the end of a row: with a length that is a power of two, the entries of a column
would share a few cache lines and be slow to read."""


class Blocking(NamedTuple):
    """How the anchors are walked; the result is the same but for rounding.

    Attributes:
        rows: anchors in a block.
        keeps_slopes: whether the slopes of all blocks are kept, which needs all keys as anchors,
            and no constant ones.
    """

    rows: int
    keeps_slopes: bool

    @classmethod
    def of(cls, num_anchors: int, num_keys: int, dim: int) -> "Blocking":
        """Choose blocks that fit a CPU's cache, but are deep enough for a matrix product.

        Args:
            num_anchors: to be walked.
            num_keys: that each anchor is contrasted with, constant ones included.
            dim: length of a key.
        """
        rows = max(_BLOCK_ELEMENTS // max(num_keys, 1), _MIN_BLOCK_ROWS, dim // 4)
        keeps_slopes = num_anchors == num_keys and num_keys**2 <= _MAX_KEPT_SLOPES
        return cls(max(1, min(num_anchors, rows)), keeps_slopes)


def contrastive_sum(
    keys: Tensor,
    targets: Tensor,
    anchors: range,
    temperature: float,
    beta: float,
    variant: Variant,
    constant_keys: Tensor | None = None,
    blocking: Blocking | None = None,
) -> Tensor:
    """Sum the losses of some anchors, each contrasted against all keys.

    Args:
        keys: of length 1, shape (n, d), float32 or float64.
        targets: of the keys and then of the m constant keys: integers, shape (n + m,), or class
            probabilities of the dtype of the keys, shape (n + m, classes).
        anchors: which rows of the keys are anchors; the step is 1. An anchor without a positive
            adds 0, but the sum stays attached to the keys.
        temperature: divides the similarities.
        beta: concentration of the hard-negative weights.
        variant: "in" or "out".
        constant_keys: of length 1, shape (m, d), of the keys' dtype; no gradient flows to them.
        blocking: how the anchors are walked; None chooses by the sizes.

    Returns:
        A scalar, differentiable once with respect to the keys.
    """
    with torch.autocast(keys.device.type, enabled=False):
        constant = keys.new_empty(0, keys.shape[1]) if constant_keys is None else constant_keys
        blocking = blocking or Blocking.of(len(anchors), len(targets), keys.shape[1])
        return _ContrastiveSum.apply(
            keys, constant, targets, anchors, temperature, beta, variant, blocking
        )


class _ContrastiveSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        keys: Tensor,
        constant_keys: Tensor,
        targets: Tensor,
        anchors: range,
        temperature: float,
        beta: float,
        variant: Variant,
        blocking: Blocking,
    ) -> Tensor:
        counted = is_labeled(targets)
        total = keys.new_zeros(())
        gradient = torch.zeros_like(keys) if ctx.needs_input_grad[0] else None
        num_keys, rows = len(keys), blocking.rows
        keeps_slopes = gradient is not None and blocking.keeps_slopes
        buffers = [_empty(rows, len(targets), keys) for _ in range(2)]
        all_slopes = _empty(num_keys if keeps_slopes else rows, len(targets), keys)
        for start in range(anchors.start, anchors.stop, rows):
            block = range(start, min(start + rows, anchors.stop))
            own = slice(block.start, block.stop)
            similarities, scratch = (buffer[: len(block)] for buffer in buffers)
            slopes = all_slopes[own] if keeps_slopes else all_slopes[: len(block)]
            if keeps_slopes and rows < num_keys:
                _mirror_similarities(similarities, all_slopes, keys, block)
            else:
                torch.mm(keys[own], keys.T, out=similarities[:, :num_keys])
                torch.mm(keys[own], constant_keys.T, out=similarities[:, num_keys:])
            similarities.div_(temperature)
            losses = anchor_losses(
                similarities, targets, counted, block, beta, variant, slopes, scratch
            )
            total += losses.sum()
            if gradient is not None:
                slopes.div_(temperature)
                if not keeps_slopes:
                    gradient[own].addmm_(slopes[:, :num_keys], keys)
                    gradient[own].addmm_(slopes[:, num_keys:], constant_keys)
                    gradient.addmm_(slopes[:, :num_keys].T, keys[own])
        if gradient is not None and keeps_slopes:
            _add_symmetric_product(gradient, all_slopes, keys, rows)
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        # The saved gradient has no graph of its own: a second derivative would miss it silently.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "The label-aware contrastive loss is differentiable once: call backward or grad "
                "without create_graph=True."
            )
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], *[None] * 7


def _empty(rows: int, columns: int, keys: Tensor) -> Tensor:
    """Return an uninitialized buffer of the keys' dtype, its rows padded."""
    return keys.new_empty(rows, columns + _PADDING)[:, :columns]


def _mirror_similarities(
    similarities: Tensor, all_slopes: Tensor, keys: Tensor, block: range
) -> None:
    """Fill in the similarities of a block's anchors; those to earlier anchors are known.

    The similarities that later anchors need are stored in their rows of `all_slopes`, shape (n, n),
    until these hold slopes.
    """
    own = slice(block.start, block.stop)
    similarities[:, : block.start] = all_slopes[own, : block.start]
    torch.mm(keys[own], keys[block.start :].T, out=similarities[:, block.start :])
    all_slopes[block.stop :, own] = similarities[:, block.stop :].T


def _add_symmetric_product(gradient: Tensor, slopes: Tensor, keys: Tensor, rows: int) -> None:
    """Add (slopes + slopes.T) @ keys in blocks of rows; slopes, shape (n, n), are overwritten."""
    for start in range(0, len(keys), rows):
        stop = start + rows
        block = slopes[start:stop, start:]
        square = block[:, :rows]
        square.copy_(square + square.T)
        gradient[start:stop].addmm_(square, keys[start:stop])
        if stop >= len(keys):
            break
        below = slopes[stop:, start:stop].add_(block[:, rows:].T)
        gradient[start:stop].addmm_(below.T, keys[stop:])
        gradient[stop:].addmm_(below, keys[start:stop])
