"""How many images a temperature takes: what n of them change, over draws and settings.

On the records of claims.py: a temperature is fitted on n images drawn at random, and the change of
the negative log-likelihood is measured on others.

    python benchmarks/studies/calibration_images.py runs/claims/shots-*/*
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch

from clce_hf.evaluation.calibration import fit_temperature, negative_log_likelihood
from clce_hf.evaluation.record import RECORD_FILE, Run
from clce_hf.evaluation.table import Table

METHODS = ("CE", "CLCE")


def changes(predictions, n, draws, generator):
    """Changes of the negative log-likelihood, one for each draw of n images."""
    for _ in range(draws):
        order = torch.randperm(len(predictions.labels), generator=generator)
        fitted, others = order[:n], order[n : n + 1500]
        logits, labels = predictions.logits.double(), predictions.labels
        temperature = fit_temperature(logits[fitted], labels[fitted])
        before = negative_log_likelihood(logits[others], labels[others])
        yield negative_log_likelihood(logits[others] / temperature, labels[others]) - before


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="each holds runs of one setting")
    parser.add_argument("--images", nargs="+", type=int, default=[20, 50, 100, 200])
    parser.add_argument("--runs", type=int, default=4, help="of each setting")
    parser.add_argument("--draws", type=int, default=8, help="of each run")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    found = defaultdict(list)  # by number of images, a tensor of changes for each setting
    for folder in args.folders:
        files = sorted(folder.glob(f"*/{RECORD_FILE}"))
        runs = [run for file in files if (run := Run.load(file.parent)).method in METHODS]
        for n in args.images if runs else ():
            of_runs = [
                change
                for run in runs[: args.runs]
                for change in changes(run.predictions, n, args.draws, generator)
            ]
            found[n].append(torch.tensor(of_runs))
    rows = []
    for n, settings in found.items():
        means = [float(changed.mean()) for changed in settings]
        worst = [float(changed.quantile(0.95)) for changed in settings]
        gains = f"{sum(mean < 0 for mean in means)} of {len(means)}"
        rows.append([str(n), gains, f"{max(means):+z.3f}", f"{max(worst):+z.3f}"])
    header = ["images", "settings that gain", "worst mean", "worst 95th percentile of draws"]
    print(Table("Change of the negative log-likelihood", header, rows).as_markdown())


if __name__ == "__main__":
    main()
