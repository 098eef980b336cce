"""Time and extra memory of the loss as the batch grows, against pytorch-metric-learning.

Each measurement runs in a process of its own: the extra memory is its peak resident memory less
what it held just before. Writes a log-log plot with --plot (needs matplotlib).

    python benchmarks/loss_memory.py --sizes 1024 4096 16384 65536 --plot docs/loss_scale.svg
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from pytorch_metric_learning.losses import SupConLoss

from clce_hf import label_aware_contrastive_loss

LARGEST_SUPCON = 8192  # it holds several n x n matrices
NAMES = ["in", "out", "SupConLoss"]


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name, n, dim):
    torch.manual_seed(0)
    labels = torch.randint(10, (n,))

    def step(embeddings, labels):
        leaf = embeddings.requires_grad_()
        if name == "SupConLoss":
            SupConLoss(temperature=0.5)(leaf, labels).backward()
        else:
            label_aware_contrastive_loss(leaf, labels, variant=name).backward()

    step(torch.randn(64, dim), labels[:64])  # what libraries allocate once
    embeddings = torch.randn(n, dim)
    before, start = peak_mib(), time.perf_counter()
    step(embeddings, labels)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "mib": peak_mib() - before}))


def plot(results, file):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, key, label in zip(
        axes, ("seconds", "mib"), ("seconds, forward and backward", "extra MiB"), strict=True
    ):
        for name, points in results.items():
            axis.plot(list(points), [p[key] for p in points.values()], "o-", label=name)
        axis.set(xscale="log", yscale="log", xlabel="batch size n", ylabel=label)
        axis.legend()
    figure.savefig(file, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--plot")
    parser.add_argument("--one", nargs=2, metavar=("NAME", "N"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return measure(args.one[0], int(args.one[1]), args.dim)

    results = {name: {} for name in NAMES}
    print(f"{'n':>6} {'loss':>10} {'seconds':>9} {'extra MiB':>10}", flush=True)
    for n in args.sizes:
        for name in NAMES:
            if name == "SupConLoss" and n > LARGEST_SUPCON:
                continue
            command = [sys.executable, __file__, "--dim", str(args.dim), "--one", name, str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            point = results[name][n] = json.loads(done.stdout)
            print(f"{n:>6} {name:>10} {point['seconds']:>9.2f} {point['mib']:>10.0f}", flush=True)
    if args.plot:
        plot(results, args.plot)


if __name__ == "__main__":
    main()
