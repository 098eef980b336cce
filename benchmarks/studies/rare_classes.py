"""Ways to train on classes of unequal size, with paired seeds, on two CPU cores.

As in claims.py, the last blocks of a checkpoint are trained on features of the frozen ones. The
training images are those of the folder as they are or, with --imbalance, an exponential cut: of the
class at rank r of C, drawn by seed, the share imbalance ** (-r / (C - 1)) of its images is kept, at
least one. The test images stay as they are. A killed study resumes.

    python benchmarks/studies/rare_classes.py --data clothing --checkpoint effnet --seeds 10
    python benchmarks/studies/rare_classes.py --data fashion --imbalance 50 --checkpoint effnet
"""

import argparse
import functools
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import frozen_features
import torch
import torch.nn.functional as F
from claims_tables import difference, mean
from study_config import study_config
from transformers import set_seed
from transformers.utils import logging

from clce_hf import CLCETrainer, LogitAdjustedLoss
from clce_hf.comparison.grid import Cell, grid
from clce_hf.comparison.methods import METHODS, Method
from clce_hf.comparison.run import load_runs, run_cells, train_and_measure
from clce_hf.evaluation.table import Table

WEIGHTS, ADJUSTED = "class weights", "logit adjustment"
SHARES = ("balanced_accuracy", "accuracy", "macro_f1", "rare_accuracy")
LIKELIHOOD = "negative_log_likelihood"
CE, CLCE = METHODS["ce"], METHODS["clce"]
STUDY = [
    Method(f"{method.name}{suffix}", method.settings)
    for method in (CE, CLCE)
    for suffix in ("", f", {WEIGHTS}", f", {ADJUSTED}")
]


def class_weighted(counts):
    """Cross-entropy with weights of inverse frequency, 1 in the mean over the training images."""
    weights = counts.sum() / (len(counts) * counts.clamp_min(1).float())

    def loss(outputs, labels, num_items_in_batch=None):
        logits = outputs["logits"].float()
        weight = weights if logits.requires_grad else None
        total = F.cross_entropy(logits, labels, weight=weight, reduction="sum")
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def long_tail(images, imbalance, seed):
    """Fewer images of some classes; which ones is drawn by seed."""
    generator = torch.Generator().manual_seed(seed)
    sizes = images.targets.bincount()
    ranks = torch.randperm(len(sizes), generator=generator)
    shares = imbalance ** (-ranks / (len(sizes) - 1))
    keep = (sizes * shares).round().long().clamp_min(1)
    order = torch.randperm(len(images), generator=generator)
    rows = [order[images.targets[order] == c][:n] for c, n in enumerate(keep.tolist())]
    return images.of(torch.cat(rows).sort().values)


def train(cell: Cell, args, data):
    """Train one method and measure it on the test images."""
    images = data["train"]
    if args.imbalance is not None:
        images = long_tail(images, args.imbalance, cell.seed)
    counts = images.targets.bincount()
    loss = None
    if cell.method.name.endswith(WEIGHTS):
        loss = class_weighted(counts)
    elif cell.method.name.endswith(ADJUSTED):
        loss = LogitAdjustedLoss(counts)
    set_seed(cell.seed)
    model = frozen_features.load_tail(args.checkpoint, len(counts), args.blocks)
    with tempfile.TemporaryDirectory() as folder:
        config = study_config(folder, args, cell)
        trainer = CLCETrainer(model, config, train_dataset=images, compute_loss_func=loss)
        run = train_and_measure(cell, trainer, data["test"])
    sizes = f"{len(images)} images, {counts.min()} to {counts.max()} of a class"
    print(f"{cell}, {sizes}: {run.metrics['balanced_accuracy']:.4f}", flush=True)
    return replace(run, metrics={**run.metrics, "rare_accuracy": rare_accuracy(run, counts)})


def rare_accuracy(run, counts):
    """Mean accuracy of the classes of the third with the fewest training images."""
    predicted, labels = run.predictions.predicted, run.predictions.labels
    rare = counts.argsort(stable=True)[: len(counts) // 3].tolist()
    return sum((predicted[labels == c] == c).double().mean().item() for c in rare) / len(rare)


def table(name, methods):
    """Means over the seeds, in percent, and paired differences in balanced and plain accuracy."""
    metric = SHARES[0]
    bases = (CE.name, CLCE.name, f"{CE.name}, {ADJUSTED}")
    header = ["", "seeds", *SHARES, LIKELIHOOD, *(f"{metric} less {base}" for base in bases)]
    header += [f"less {WEIGHTS}", f"accuracy less {CE.name}"]
    rows = []
    for method, by_seed in methods.items():
        weighted = methods.get(f"{method.split(', ')[0]}, {WEIGHTS}", {})
        entries = [method, str(len(by_seed))]
        entries += [f"{100 * mean(by_seed, share):.2f}" for share in SHARES]
        entries.append(f"{mean(by_seed, LIKELIHOOD):.3f}")
        others = [*(methods.get(base, {}) for base in bases), weighted]
        entries += [difference(by_seed, other, metric) for other in others]
        rows.append([*entries, difference(by_seed, methods.get(CE.name, {}), "accuracy")])
    return Table(name, header, rows)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--imbalance", type=float, help="largest class by the smallest")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--blocks", type=int, default=1, help="last blocks to train")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--cache", default="runs/features")
    parser.add_argument("--output", default="runs/rare_classes")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    return parser.parse_args()


def main():
    args = read_arguments()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    data = frozen_features.features(args.data, args.checkpoint, args.size, args.blocks, args.cache)
    name = f"{Path(args.data).name}-{args.imbalance or 1:g}"
    folder = Path(args.output, f"{name}-lr{args.lr:g}-batch{args.batch}-{args.steps}steps")
    cells = grid(STUDY, list(range(args.seeds)))
    if not args.table:
        run_cells(cells, folder, functools.partial(train, args=args, data=data))
    methods: dict[str, dict] = defaultdict(dict)
    for run in load_runs(cells, folder):
        methods[run.method][run.seed] = run.metrics
    print(table(name, methods).as_markdown())


if __name__ == "__main__":
    main()
