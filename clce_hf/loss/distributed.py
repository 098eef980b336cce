"""The contrastive loss of a batch, or of the batches of all processes together.

Keys of past batches may be contrasted with, too. Rows of all processes are stacked with gradients,
since Accelerate's own gather has no backward.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from clce_hf.loss.contrastive import contrastive_sum
from clce_hf.loss.hyperparameters import Variant, check_hyperparameters
from clce_hf.loss.pairs import count_anchors, count_positives
from clce_hf.loss.unit_length import to_unit_length


class Keys(NamedTuple):
    """What anchors are contrasted with.

    Attributes:
        embeddings: of length 1, shape (n, d), float32 at least.
        targets: class ids, shape (n,), or class probabilities, shape (n, classes).
    """

    embeddings: Tensor
    targets: Tensor


class ContrastiveTerm(NamedTuple):
    """The contrastive term of a batch.

    Attributes:
        loss: of this process, a scalar.
        num_positives: of the images of this process, shape (n,).
        keys: the images of all processes that were contrasted together, in the order of the ranks.
    """

    loss: Tensor
    num_positives: Tensor
    keys: Keys


def contrastive_term(
    embeddings: Tensor,
    targets: Tensor,
    *,
    temperature: float,
    beta: float,
    variant: Variant,
    gather: bool = False,
    past: Keys | None = None,
) -> ContrastiveTerm:
    """Contrast a batch: the mean loss over the anchors that have a positive.

    With `gather`, the anchors are the images of this process and the keys those of all. The sum
    over the anchors is divided by the number of valid anchors of all processes and multiplied by
    the number of processes. The mean over the processes, which distributed training takes of the
    gradients, is then the loss of one process with the whole batch.

    Args:
        embeddings: of this process, floating point, shape (n, d); n may differ between processes
            and may be 0.
        targets: what `class_targets` returns, of one kind in all processes.
        temperature: see `label_aware_contrastive_loss`.
        beta: see `label_aware_contrastive_loss`.
        variant: see `label_aware_contrastive_loss`.
        gather: contrast over all processes; in one process this changes nothing.
        past: keys beside those of the batch, to which no gradient flows, with targets of the same
            kind; the same in all processes that are gathered.

    Raises:
        ValueError: for a hyperparameter out of range.
    """
    check_hyperparameters(temperature=temperature, beta=beta, variant=variant)
    keys, first, num_processes = to_unit_length(embeddings), 0, 1
    all_targets = targets.to(keys.dtype) if targets.is_floating_point() else targets
    if gather:
        (keys, all_targets), first = gather_rows(keys, all_targets)
        num_processes = dist.get_world_size() if dist.is_initialized() else 1
    anchors = range(first, first + len(targets))
    of_batch, constant_keys = Keys(keys, all_targets), None
    num_positives = count_positives(all_targets, None if past is None else past.targets)
    if past is not None:
        constant_keys, all_targets = past.embeddings, torch.cat([all_targets, past.targets])
    total = contrastive_sum(keys, all_targets, anchors, temperature, beta, variant, constant_keys)
    loss = total * num_processes / count_anchors(num_positives).clamp_min(1)
    return ContrastiveTerm(loss, num_positives[anchors.start : anchors.stop], of_batch)


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
