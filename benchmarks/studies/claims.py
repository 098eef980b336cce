"""CLCE against cross-entropy on folders of photographs, with paired seeds, on two CPU cores.

The last blocks of a checkpoint are trained on features of the frozen ones (frozen_features.py).
Within a seed all methods see the same images, in the same order where their sampler is the same,
and start from the same head. A killed study resumes, and several processes share one.

    python benchmarks/studies/claims.py shots --data clothing --checkpoint effnet --size 96 \\
        --blocks 1 --lr 1e-3 --batch 40 --steps 60 --shots 5 10 20 --seeds 10

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg.
"""

import argparse
import functools
import random
import statistics
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import frozen_features
import torch
from claims_methods import STUDIES
from claims_tables import print_tables
from transformers import set_seed
from transformers.utils import logging

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.comparison.grid import Cell, grid
from clce_hf.comparison.run import load_runs, run_cells, train_and_measure
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.suite import few_shot_metrics

CLASSIFIERS = ("centroid", "logistic")


def train(cell: Cell, args, images, measured, novel_images=None):
    """Train on some of the images and measure on others, and episodes on those of new classes."""
    set_seed(cell.seed)
    model = frozen_features.load_tail(args.checkpoint, len(images.targets.unique()), args.blocks)
    if cell.shots is not None:
        rows = low_shot_rows(images.targets, cell.shots, cell.seed)
        images = images.of(torch.tensor(rows))
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "learning_rate": args.lr,
            "max_steps": args.steps,
            "num_train_epochs": args.epochs,
            "per_device_train_batch_size": cell.batch_size or args.batch,
            **cell.method.settings,
        }
        config = CLCEConfig(
            folder,
            per_device_eval_batch_size=128,
            warmup_steps=0.1,
            weight_decay=0.05,
            lr_scheduler_type="cosine",
            use_cpu=True,
            seed=cell.seed,
            save_strategy="no",
            logging_strategy="steps",
            logging_steps=10,
            disable_tqdm=True,
            **settings,
        )
        run = train_and_measure(cell, CLCETrainer(model, config, train_dataset=images), measured)
        if novel_images is not None:
            few_shot = novel_metrics(model, novel_images, args.novel, cell.seed)
            run = replace(run, metrics={**run.metrics, **few_shot})
    print(f"{cell.name} {run.metrics['accuracy']:.4f}", flush=True)
    return run


def novel_metrics(model, images, n_way, seed):
    """Few-shot accuracy on classes that were not trained on."""
    predictions = infer(model, images, 128)
    embeddings, labels = predictions.embeddings, predictions.labels
    return few_shot_metrics(embeddings, labels, n_way=n_way, shots=(1, 5), seed=seed)


def split_classes(args, data, seed):
    """Classes to train on, and the images of the others, of any split that is not trained on."""
    classes = sorted(data["train"].targets.unique().tolist())
    random.Random(seed).shuffle(classes)
    seen, novel = classes[: -args.novel], classes[-args.novel :]
    unseen = [data["test"].only(novel), data["validation"].only(novel)]
    return seen, torch.utils.data.ConcatDataset(unseen)


def train_on_some_classes(cell: Cell, args, data):
    """Train on some classes; few-shot episodes on the others."""
    seen, novel_images = split_classes(args, data, cell.seed)
    return train(cell, args, data["train"].only(seen), data["test"].only(seen), novel_images)


def before_training(args, data, seeds):
    """Few-shot accuracy of the checkpoint's own embeddings, by metric, over the seeds."""
    values = defaultdict(list)
    for seed in seeds:
        seen, novel_images = split_classes(args, data, seed)
        model = frozen_features.load_tail(args.checkpoint, len(seen) + args.novel, args.blocks)
        for name, value in novel_metrics(model, novel_images, args.novel, seed).items():
            values[name].append(value)
    return values


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--data", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--blocks", type=int, help="last blocks to train; all by default")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60, help="-1 for as many as the epochs have")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", help="names; all of the study by default")
    parser.add_argument("--novel", type=int, default=4)
    parser.add_argument(
        "--shots", type=int, nargs="+", default=[5, 10, 20], help="images per class; 0 for all"
    )
    parser.add_argument("--cache", default="runs/features")
    parser.add_argument("--output", default="runs/claims")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    return parser.parse_args()


def main():
    args = read_arguments()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    data = frozen_features.features(args.data, args.checkpoint, args.size, args.blocks, args.cache)
    kind = "validation" if args.study in ("rate", "settings") else args.study
    name = f"{kind}-{Path(args.data).name}-{Path(args.checkpoint).name}-{args.blocks}"
    length = f"{args.steps}steps" if args.steps > 0 else f"{args.epochs:g}epochs"
    folder = Path(args.output, name, f"lr{args.lr:g}-batch{args.batch}-{length}")
    methods, seeds = STUDIES[args.study], list(range(args.seeds))
    shots = [k or None for k in args.shots]
    metrics = ["accuracy", "negative_log_likelihood", "calibration_error"]
    measured = data["validation" if kind == "validation" else "test"]
    run = functools.partial(train, args=args, images=data["train"], measured=measured)
    if args.study == "novel":
        cells = grid(methods, seeds)
        metrics = [f"{args.novel}_way_{k}_shot_{c}" for k in (5, 1) for c in CLASSIFIERS]
        metrics.append("accuracy")
        run = functools.partial(train_on_some_classes, args=args, data=data)
    else:
        cells = grid(methods, seeds, shots)
    if args.methods:
        cells = [cell for cell in cells if cell.method.name in args.methods]
    if not args.table:
        run_cells(cells, folder, run)
    print_tables(load_runs(cells, folder), metrics)
    if args.study == "novel":
        for name, values in before_training(args, data, seeds).items():
            print(f"before training {name:32} {statistics.mean(values):.4f}")


if __name__ == "__main__":
    main()
