"""The paper's claims on folders of photographs, with paired seeds, on two CPU cores.

The last blocks of a checkpoint are trained on features of the frozen ones (frozen_features.py).
Within a seed all methods see the same images, in the same order where their sampler is the same,
and start from the same head. A killed study goes on where it stopped, and several processes share
one.

    python benchmarks/claims.py shots --data clothing --checkpoint effnet --size 96 --blocks 1

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
from transformers import set_seed
from transformers.utils import logging

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.comparison.grid import METHODS, Cell, Method, grid, load_records, run_cells
from clce_hf.comparison.run import train_and_measure
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.suite import few_shot_metrics

CE, CLCE = METHODS["ce"], METHODS["clce"]
SUPCON = Method("CE + SupCon, tau 0.1", METHODS["supcon"].settings)
SUPCON_WARM = Method("CE + SupCon, tau 0.5", {"variant": "out", "beta": 0.0})
SUPCON_OTHERS = [
    Method(f"CE + SupCon, tau {t:g}", {**SUPCON.settings, "temperature": t})
    for t in (0.05, 0.25, 1.0)
]
RANDOM = {"samples_per_class": None}
SMOOTH = {"label_smoothing_factor": 0.1}
CLASSIFIERS = ("centroid", "logistic")
SHOTS = [
    Method("CE, random batches", {**CE.settings, **RANDOM}),
    CE,
    SUPCON,
    SUPCON_WARM,
    *SUPCON_OTHERS,  # one of them may be SupCon's best on validation images
    Method("CLCE, random batches", RANDOM),
    CLCE,
    METHODS["clce-out"],
    METHODS["clce-uniform"],
]
CALIBRATED = [
    Method("CE, label smoothing 0.1", {**CE.settings, **SMOOTH}),
    Method("CLCE, label smoothing 0.1", SMOOTH),
]
SETTINGS = [  # for what to recommend; chosen on validation images
    *(
        Method(f"CLCE, lambda {w:g}, tau {t:g}", {"temperature": t, "contrastive_weight": w})
        for t in (0.1, 0.25, 0.5)
        for w in (0.3, 0.5, 0.9)
    ),
    *(
        Method(
            f"SupCon, lambda {weight:g}, tau 0.1", {**SUPCON.settings, "contrastive_weight": weight}
        )
        for weight in (0.3, 0.5)
    ),
    SUPCON_WARM,
    *SUPCON_OTHERS,
    *(Method(f"CLCE, {k} images of a class", {"samples_per_class": k}) for k in (2, 8)),
]
NOVEL = [
    CE,
    SUPCON,
    CLCE,
    METHODS["clce-out"],
    Method("CLCE, projection 128", {"projection_dim": 128}),
    Method("CLCE, lambda 0.5", {"contrastive_weight": 0.5}),
    Method("CLCE, lambda 0.5, projection 128", {"contrastive_weight": 0.5, "projection_dim": 128}),
    Method("CLCE, tau 0.1", {"temperature": 0.1}),
    Method("CLCE, tau 1", {"temperature": 1.0}),
    Method("CLCE, lambda 0.5, tau 0.1", {"contrastive_weight": 0.5, "temperature": 0.1}),
    Method("CLCE, lambda 0.5, tau 0.25", {"contrastive_weight": 0.5, "temperature": 0.25}),
    Method("CLCE, lambda 0.2", {"contrastive_weight": 0.2}),
    Method("CLCE, lambda 0.2, tau 0.1", {"contrastive_weight": 0.2, "temperature": 0.1}),
    Method("SupCon, lambda 0.5, tau 0.1", {**SUPCON.settings, "contrastive_weight": 0.5}),
    Method("CLCE, a third of the steps", {"max_steps": 20}),
    Method("CE, a third of the steps", {**CE.settings, "max_steps": 20}),
    Method("SupCon, projection 128", {**SUPCON.settings, "projection_dim": 128}),
]


def train(cell: Cell, args, kept, images, measured):
    """Train on some of the images and measure on others."""
    set_seed(cell.seed)
    model = frozen_features.load_tail(args.checkpoint, len(images.targets.unique()), args.blocks)
    if cell.shots is not None:
        rows = low_shot_rows(images.targets, cell.shots, cell.seed)
        images = images.of(torch.tensor(rows))
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Any] = {
            "samples_per_class": 4,
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
        record = train_and_measure(cell, CLCETrainer(model, config, train_dataset=images), measured)
        if kept is not None:
            found = infer(model, kept, 128)
            few_shot = few_shot_metrics(
                found.embeddings, found.labels, n_way=args.novel, shots=(1, 5), seed=cell.seed
            )
            record = replace(record, metrics={**record.metrics, **few_shot})
    print(f"{cell.name} {record.metrics['accuracy']:.4f}", flush=True)
    return record


def train_on_some_classes(cell: Cell, args, data):
    """Train on some classes; few-shot episodes on the others, of any split."""
    classes = sorted(data["train"].targets.unique().tolist())
    random.Random(cell.seed).shuffle(classes)
    seen, novel = classes[: -args.novel], classes[-args.novel :]
    unseen = [data["test"].only(novel), data["validation"].only(novel)]
    rows = torch.utils.data.ConcatDataset(unseen)
    return train(cell, args, rows, data["train"].only(seen), data["test"].only(seen))


def before_training(args, data, seeds):
    """Few-shot accuracy of the checkpoint's own embeddings, by seed."""
    found = defaultdict(list)
    for seed in seeds:
        classes = sorted(data["train"].targets.unique().tolist())
        random.Random(seed).shuffle(classes)
        novel = classes[-args.novel :]
        rows = torch.utils.data.ConcatDataset(
            [data["test"].only(novel), data["validation"].only(novel)]
        )
        model = frozen_features.load_tail(args.checkpoint, len(classes), args.blocks)
        inferred = infer(model, rows, 128)
        for name, value in few_shot_metrics(
            inferred.embeddings, inferred.labels, n_way=args.novel, shots=(1, 5), seed=seed
        ).items():
            found[name].append(value)
    return found


def print_tables(records, baselines, metrics):
    """Markdown: means, deviations, and paired differences in accuracy to the better baselines."""
    groups = defaultdict(lambda: defaultdict(dict))
    for record in records:
        groups[record.shots, record.batch_size][record.method][record.seed] = record.metrics
    for (shots, batch), methods in groups.items():
        print(f"\n{shots or 'all'} images a class, batch {batch}\n")
        better = [
            max(named, key=lambda name: mean(methods[name], metrics[0]))
            for names in baselines
            if (named := [name for name in names if name in methods])
        ]
        columns = ["", "seeds", *metrics, *(f"less {name}" for name in better), "ms a step"]
        print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
        for name, runs in methods.items():
            cells = [name, str(len(runs))]
            for metric in metrics:
                values = [found[metric] for found in runs.values()]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                cells.append(f"{mean(runs, metric):.4f} ± {spread:.4f}")
            cells += [difference(runs, methods[base], metrics[0]) for base in better]
            cells.append(f"{1000 * mean(runs, 'seconds_per_step'):.0f}")
            print("| " + " | ".join(cells) + " |")


def mean(runs, metric):
    return statistics.mean(found[metric] for found in runs.values())


def difference(runs, others, metric):
    seeds = sorted(runs.keys() & others.keys())
    if runs is others or not seeds:
        return ""
    found = paired_difference([runs[s][metric] for s in seeds], [others[s][metric] for s in seeds])
    percent = f"{100 * found.mean:+.2f} ± {100 * found.interval:.2f}"
    return f"{percent} ({found.wins} of {found.pairs})"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "study", choices=["rate", "shots", "settings", "calibration", "novel", "batches"]
    )
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
        "--shots", type=int, nargs="+", default=[5, 10, 20], help="images a class; 0 for all"
    )
    parser.add_argument("--cache", default="runs/features")
    parser.add_argument("--output", default="runs/claims")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()

    data = frozen_features.features(args.data, args.checkpoint, args.size, args.blocks, args.cache)
    name = f"{args.study}-{Path(args.data).name}-{Path(args.checkpoint).name}-{args.blocks}"
    folder = Path(args.output, name, f"lr{args.lr:g}")
    seeds, shots = list(range(args.seeds)), [k or None for k in args.shots]
    metrics = ["accuracy", "negative_log_likelihood", "calibration_error"]
    baselines = [
        [CE.name, SHOTS[0].name],
        [m.name for m in (SUPCON, SUPCON_WARM, *SUPCON_OTHERS)],
        [CLCE.name, "CLCE, lambda 0.9, tau 0.5"],  # the same method, named by its study
        [METHODS["clce-uniform"].name],
    ]
    measured = data["validation" if args.study in ("rate", "settings") else "test"]
    run = functools.partial(train, args=args, kept=None, images=data["train"], measured=measured)
    if args.study == "rate":
        cells = grid([SHOTS[0], CE], seeds, shots)
    elif args.study == "shots":
        cells = grid(SHOTS, seeds, shots)
    elif args.study == "settings":
        cells = grid([CE, SUPCON, *SETTINGS], seeds, shots)
    elif args.study == "calibration":
        cells = grid([CE, CLCE, SUPCON, *CALIBRATED], seeds, shots)
        metrics += [f"calibrated_{name}" for name in metrics[1:]]
    elif args.study == "batches":
        args.steps, args.epochs = -1, 12
        cells = grid([CE, SUPCON, CLCE], seeds, shots[-1:], [16, 32, 64, 128])
    else:
        cells = grid(NOVEL, seeds)
        metrics = [f"{args.novel}_way_{k}_shot_{c}" for k in (5, 1) for c in CLASSIFIERS]
        metrics.append("accuracy")
        run = functools.partial(train_on_some_classes, args=args, data=data)
    if args.methods:
        cells = [cell for cell in cells if cell.method.name in args.methods]
    if not args.table:
        run_cells(cells, folder, run)
    print_tables(load_records(cells, folder), baselines, metrics)
    if args.study == "novel":
        for name, values in before_training(args, data, seeds).items():
            print(f"before training {name:32} {statistics.mean(values):.4f}")


if __name__ == "__main__":
    main()
