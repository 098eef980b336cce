"""Calibration of CLCE and cross-entropy, before and after `trainer.calibrate`.

Both are trained as claims.py does, on some images of each class. The temperature is fitted on the
validation images, and everything is measured on the test images, which neither saw. A killed study
resumes.

    python benchmarks/studies/calibration.py --data clothing --checkpoint effnet --size 96 \\
        --blocks 1 --lr 3e-3 --steps 60 --seeds 5

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg.
"""

import argparse
import functools
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import claims_methods
import frozen_features
import torch
from claims_tables import mean
from study_config import study_config
from transformers import set_seed
from transformers.utils import logging

from clce_hf import CLCETrainer
from clce_hf.comparison.grid import Cell, grid
from clce_hf.comparison.run import load_runs, run_cells, train_and_measure
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.suite import classification_metrics
from clce_hf.evaluation.table import Table

METRICS = {"negative_log_likelihood": "negative log-likelihood", "calibration_error": "error"}
CE, CLCE = claims_methods.CE, claims_methods.CLCE


def train(cell: Cell, args, data):
    """Train, measure, calibrate and measure again."""
    set_seed(cell.seed)
    images = data["train"]
    model = frozen_features.load_tail(args.checkpoint, len(images.targets.unique()), args.blocks)
    images = images.of(torch.tensor(low_shot_rows(images.targets, args.shots, cell.seed)))
    with tempfile.TemporaryDirectory() as folder:
        config = study_config(folder, args, cell)
        trainer = CLCETrainer(model, config, train_dataset=images, eval_dataset=data["validation"])
        run = train_and_measure(cell, trainer, data["test"])
        fitted = trainer.calibrate()
        predictions = infer(model, data["test"], 128)
    after = classification_metrics(predictions.logits, predictions.labels)
    assert after["accuracy"] == run.metrics["accuracy"]
    measured = {f"{name}_after": after[name] for name in METRICS}
    print(f"{cell.name} {run.metrics['accuracy']:.4f}", flush=True)
    return replace(run, metrics={**run.metrics, **fitted_metrics(fitted), **measured})


def fitted_metrics(fitted):
    """What `calibrate` said, of the validation images."""
    return {f"validation_{name}": value for name, value in fitted.items()}


def table(caption, runs):
    """Each metric of each method, before and after, and CLCE's differences to cross-entropy."""
    by_method = defaultdict(dict)
    for run in runs:
        by_method[run.method][run.seed] = run.metrics
    rows = []
    for name, seeds in by_method.items():
        for when in ("", "_after"):
            temperature = mean(seeds, "validation_calibration_temperature")
            entries = [name if not when else f"{name}, calibrated", f"{temperature:.2f}"]
            for metric in METRICS:
                entries.append(f"{mean(seeds, metric + when):.4f}")
                entries.append(difference(seeds, by_method[CE.name], metric + when))
            rows.append(entries if when else [entries[0], "", *entries[2:]])
    header = ["", "temperature"]
    for label in METRICS.values():
        header += [label, f"less {CE.name}'s"]
    return Table(caption, header, rows)


def difference(seeds, others, metric):
    common = sorted(seeds.keys() & others.keys())
    if seeds is others or not common:
        return ""
    gain = paired_difference(*([run[s][metric] for s in common] for run in (seeds, others)))
    return f"{gain.mean:+z.4f} ± {gain.interval:.4f}"


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--blocks", type=int, help="last blocks to train; all by default")
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--shots", type=int, default=10, help="training images per class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", default="runs/features")
    parser.add_argument("--output", default="runs/calibration")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    return parser.parse_args()


def main():
    args = read_arguments()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    name = f"{Path(args.data).name}-{Path(args.checkpoint).name}-{args.blocks}"
    folder = Path(args.output, name, f"lr{args.lr:g}-batch{args.batch}-{args.steps}steps")
    cells = grid([CE, CLCE], list(range(args.seeds)), [args.shots])
    if not args.table:
        data = frozen_features.features(
            args.data, args.checkpoint, args.size, args.blocks, args.cache
        )
        run_cells(cells, folder, functools.partial(train, args=args, data=data))
    shown = table(name, load_runs(cells, folder))
    print(f"\n{shown.caption}\n\n{shown.as_markdown()}")


if __name__ == "__main__":
    main()
