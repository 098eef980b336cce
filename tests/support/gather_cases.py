"""Contrast embeddings that several processes share in every uneven way; run by torchrun.

Each process writes whether its part, and its gradient averaged as in distributed training, are
those of one process with all embeddings, in float64.
"""

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from clce_hf.loss.clce import label_aware_contrastive_loss
from clce_hf.loss.distributed import contrastive_term, gather_rows
from support.waiting import WaitsForDevice

# Labels of each of three processes.
SHARES = {
    "equal": [[0, 1], [0, 2], [1, 2]],
    "one image in one process": [[0, 1, 0, 2], [1], [0, 2, 2]],
    "an empty process": [[0, 1, 1], [], [0, 0]],
    "a process without a valid anchor": [[0, 0, 1], [2, 3], [0, 1]],
    "one class in each process": [[0, 0], [1, 1], [2, 2]],
    "left out labels": [[0, -100, 1], [-100], [1, 0, -100]],
    "no valid anchor at all": [[0], [1], [2]],
    "one class": [[0, 0], [0], [0, 0, 0]],
}
# The same, but for those that are left out, which soft labels cannot say.
SOFT_SHARES = {
    f"soft labels, {name}": shares
    for name, shares in SHARES.items()
    if not any(-100 in share for share in shares)
}
HYPERPARAMETERS = [
    {"temperature": 0.5, "beta": 1.0, "variant": "in"},
    {"temperature": 0.2, "beta": 0.0, "variant": "out"},
]


def made_soft(labels):
    """A label for each image that leans to its class, more or less, with a share of the next."""
    share = torch.tensor([[1.0], [0.8], [0.5]], dtype=torch.float64).repeat(len(labels), 1)
    one_hot = torch.eye(4, dtype=torch.float64)[labels]
    return share[: len(labels)] * one_hot + (1 - share[: len(labels)]) * one_hot.roll(1, 1)


def error(shares, hyperparameters, seed, is_soft):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(sum(map(len, shares)), 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    rank, sizes = dist.get_rank(), [len(share) for share in shares]

    whole = weight.clone().requires_grad_()
    labels = torch.tensor([label for share in shares for label in share])
    if is_soft:
        labels = made_soft(labels)
    expected = label_aware_contrastive_loss(images @ whole, labels, **hyperparameters)
    expected.backward()

    own = weight.clone().requires_grad_()
    mine = images.split(sizes)[rank] @ own
    with WaitsForDevice() as waits:
        part, num_positives, _ = contrastive_term(
            mine, labels.split(sizes)[rank], **hyperparameters, gather=True
        )
        part.backward()
    assert waits.by_function == {"gather_rows": 1}  # for the numbers of rows of the others
    assert len(num_positives) == sizes[rank]
    mean = part.detach() / dist.get_world_size()
    dist.all_reduce(mean)
    averaged = own.grad / dist.get_world_size()
    dist.all_reduce(averaged)
    return max(float((mean - expected.detach()).abs()), float((averaged - whole.grad).abs().max()))


def main(folder: str) -> None:
    dist.init_process_group("gloo")
    assert dist.get_world_size() == 3
    errors = {
        f"{name}, {hyperparameters['variant']}": error(shares, hyperparameters, seed, is_soft)
        for seed, (name, shares) in enumerate({**SHARES, **SOFT_SHARES}.items())
        for is_soft in (name in SOFT_SHARES,)
        for hyperparameters in HYPERPARAMETERS
    }
    rank = dist.get_rank()
    rows = torch.full((rank, 2, 3), rank, dtype=torch.bfloat16)
    (stacked, again), first = gather_rows(rows, rows[:, 0])
    assert (stacked[:, 0, 0].tolist(), first) == ([1, 2, 2], max(0, rank - 1))
    assert torch.equal(stacked[:, 0], again)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
    dist.barrier()  # a process that left first would break what the others still hold open
    # A dispatch mode that saw a collective keeps the group and its threads alive, and the
    # interpreter's way out now and then aborts in them.
    os._exit(0)
