"""Time of the loss, forward and backward, against pytorch-metric-learning's SupConLoss.

Both run in the same process, in turns, and the ratio is the median over the turns.

    python benchmarks/loss_speed.py --sizes 64 256 1024
"""

import argparse
import statistics
import time

import torch
from pytorch_metric_learning.losses import SupConLoss

from clce_hf import label_aware_contrastive_loss


def seconds(loss_of, embeddings, labels, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        leaf = embeddings.detach().requires_grad_()
        loss_of(leaf, labels).backward()
    return (time.perf_counter() - start) / repeats


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()

    supcon = SupConLoss(temperature=0.5)
    contenders = {
        "in": lambda e, y: label_aware_contrastive_loss(e, y, variant="in"),
        "out": lambda e, y: label_aware_contrastive_loss(e, y, variant="out"),
    }
    print(f"{'n':>6} {'variant':>8} {'clce_hf ms':>11} {'SupCon ms':>10} {'ratio':>6}")
    for n in args.sizes:
        torch.manual_seed(0)
        embeddings = torch.randn(n, args.dim)
        labels = torch.randint(args.classes, (n,))
        repeats = max(1, 2048 // n)
        for name, loss_of in contenders.items():
            ours, theirs = [], []
            for turn in range(args.turns + 2):
                pair = (
                    seconds(loss_of, embeddings, labels, repeats),
                    seconds(supcon, embeddings, labels, repeats),
                )
                if turn >= 2:
                    ours.append(pair[0])
                    theirs.append(pair[1])
            ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
            print(
                f"{n:>6} {name:>8} {1e3 * statistics.median(ours):>11.2f} "
                f"{1e3 * statistics.median(theirs):>10.2f} {ratio:>6.2f}"
            )


if __name__ == "__main__":
    main()
