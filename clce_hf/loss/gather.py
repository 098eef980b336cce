"""Stack the rows of all processes, with gradients: Accelerate's own gather has no backward."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather_rows(*tensors: Tensor) -> tuple[list[Tensor], int]:
    """Stack the rows that each process holds, in the order of the ranks.

    Every process must call this, and run the backward pass, in the same order as its other
    collectives. In the backward pass the gradients that all processes have for a row are summed
    and handed to the process that the row came from. In one process nothing happens.

    Args:
        tensors: of any dtype, all of shape (n, ...) with one n; processes may differ in n, which
            may be 0, but not in the other sizes.

    Returns:
        The stacked tensors, shape (sum of all n, ...), and the index of this process's first row.
    """
    if not dist.is_initialized():
        return list(tensors), 0
    count = torch.tensor([len(tensors[0])], device=tensors[0].device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    sizes = torch.cat(counts).tolist()
    return [_GatherRows.apply(tensor, sizes) for tensor in tensors], sum(sizes[: dist.get_rank()])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        # Collectives want one size: rows are padded to the largest and cut back.
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(  # pyrefly: ignore[bad-override]  # the decorator hides the argument's name
        ctx: Any, *grad_outputs: Any
    ) -> Any:
        (gradient,) = grad_outputs
        padded = gradient.new_zeros(len(ctx.sizes), max(ctx.sizes), *gradient.shape[1:])
        for part, own in zip(padded, gradient.split(ctx.sizes), strict=True):
            part[: len(own)] = own
        total = torch.empty_like(padded[0])
        dist.reduce_scatter(total, list(padded))
        return total[: ctx.sizes[dist.get_rank()]], None
