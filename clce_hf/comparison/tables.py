"""Tables of a comparison: means over seeds, and paired differences to cross-entropy."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from clce_hf.comparison.grid import METHODS
from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.record import Record
from clce_hf.reports.report import Table

BASELINE = METHODS["ce"].name

_HEADER = (
    *("", "accuracy, %", f"difference to {BASELINE}", "wins"),
    *("negative log-likelihood", "calibrated", "calibration error", "ms a step"),
)

BySeed = dict[int, Record]


def summaries(records: Sequence[Record]) -> list[Table]:
    """One table for each number of shots and batch size.

    Accuracy is given as mean and standard deviation over the seeds, its difference to
    cross-entropy as the mean over the seeds that both have, with its 95 % interval by Student's t;
    a win is a seed at which the accuracy is higher. `calibrated` is the likelihood with a
    temperature fitted on other images.
    """
    groups: dict[tuple[int | None, int], dict[str, BySeed]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        groups[record.shots, record.batch_size][record.method][record.seed] = record
    return [_summary(shots, size, methods) for (shots, size), methods in groups.items()]


def _summary(shots: int | None, batch_size: int, methods: dict[str, BySeed]) -> Table:
    images = "all images" if shots is None else f"{shots} images a class"
    rows = [_row(name, runs, methods.get(BASELINE)) for name, runs in methods.items()]
    return Table(f"Trained on {images}, batch size {batch_size}", _HEADER, rows)


def _row(name: str, runs: BySeed, baseline: BySeed | None) -> list[str]:
    accuracies = _percent(runs, sorted(runs))
    cells = [name, _mean_and_deviation(accuracies)]
    common = sorted(runs.keys() & (baseline or {}).keys())
    if baseline is None or name == BASELINE or not common:
        cells += ["", ""]
    else:
        found = paired_difference(_percent(runs, common), _percent(baseline, common))
        interval = f" ± {found.interval:.2f}" if found.pairs > 1 else ""
        cells += [f"{found.mean:+.2f}{interval}", f"{found.wins} of {found.pairs}"]
    for metric, digits in (
        ("negative_log_likelihood", 3),
        ("calibrated_negative_log_likelihood", 3),
        ("calibration_error", 3),
    ):
        cells.append(f"{_mean(runs, metric):.{digits}f}")
    return [*cells, f"{1000 * _mean(runs, 'seconds_per_step'):.0f}"]


def _percent(runs: BySeed, seeds: Sequence[int]) -> list[float]:
    return [100 * runs[seed].metrics["accuracy"] for seed in seeds]


def _mean(runs: BySeed, metric: str) -> float:
    return statistics.mean(record.metrics[metric] for record in runs.values())


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"
