"""Embeddings scaled to length 1, with a gradient that neither overflows nor costs much memory."""

from typing import Any

import torch
from torch import Tensor

_NORM_FLOOR = 1e-12


def to_unit_length(embeddings: Tensor) -> Tensor:
    """Scale each row to length 1 without overflow; a row below 1e-12, about 0, stays as it is.

    Args:
        embeddings: floating point, shape (n, d).

    Returns:
        Shape (n, d), float32 at least: float64 stays float64.
    """
    return _UnitLength.apply(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)))


class _UnitLength(torch.autograd.Function):
    """Autograd alone would hold twice as many tensors of the embeddings' size.

    The largest entry of a row is divided out first, so that squares neither overflow nor vanish;
    what remains has a length of at least 1. The gradient of a (nearly) zero row must not blow up by
    1 / length: it passes as it is.
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor) -> Tensor:
        scale = embeddings.abs().amax(dim=1, keepdim=True)
        is_zero = scale <= _NORM_FLOOR
        scale.masked_fill_(is_zero, 1.0)
        unit = embeddings / scale
        length = unit.norm(dim=1, keepdim=True).masked_fill_(is_zero, 1.0)
        unit.div_(length)
        ctx.save_for_backward(unit, scale, length, is_zero)
        return unit

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (gradient,) = grad_outputs
        unit, scale, length, is_zero = ctx.saved_tensors
        along = (gradient * unit).sum(1, keepdim=True).masked_fill_(is_zero, 0.0)
        return torch.addcmul(gradient, unit, along, value=-1).div_(length).div_(scale)
