"""Tables of a comparison: means over seeds, and paired differences to cross-entropy."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from clce_hf.comparison.methods import METHODS
from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.record import Run
from clce_hf.evaluation.table import Table

BASELINE = METHODS["ce"].name

_HEADER = (
    *("", "accuracy, %", f"difference to {BASELINE}", "wins"),
    *("negative log-likelihood", "calibrated", "calibration error", "ms per step"),
)

_CALIBRATION = (
    "negative_log_likelihood",
    "calibrated_negative_log_likelihood",
    "calibration_error",
)

BySeed = dict[int | None, Run]


def summaries(runs: Sequence[Run]) -> list[Table]:
    """One table for each number of shots and batch size.

    Accuracy is given as mean and standard deviation over the seeds, its difference to
    cross-entropy as the mean over the seeds that both have, with its 95 % interval by Student's t;
    a win is a seed at which the accuracy is higher. `calibrated` is the likelihood with a
    temperature fitted on other images.

    Args:
        runs: of one comparison.
    """
    groups: dict[tuple[int | None, int | None], dict[str, BySeed]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for run in runs:
        groups[run.shots, run.batch_size][run.method][run.seed] = run
    return [_summary(shots, size, methods) for (shots, size), methods in groups.items()]


def _summary(shots: int | None, batch_size: int | None, methods: dict[str, BySeed]) -> Table:
    images = "all images" if shots is None else f"{shots} images per class"
    rows = [_row(name, runs, methods.get(BASELINE)) for name, runs in methods.items()]
    return Table(f"Trained on {images}, batch size {batch_size}", _HEADER, rows)


def _row(name: str, runs: BySeed, baseline: BySeed | None) -> list[str]:
    entries = [name, _mean_and_deviation(_percent(runs, list(runs)))]
    common = [seed for seed in runs if seed in (baseline or {})]
    if baseline is None or name == BASELINE or not common:
        entries += ["", ""]
    else:
        gain = paired_difference(_percent(runs, common), _percent(baseline, common))
        interval = f" ± {gain.interval:.2f}" if gain.pairs > 1 else ""
        entries += [f"{gain.mean:+.2f}{interval}", f"{gain.wins} of {gain.pairs}"]
    for metric in _CALIBRATION:
        entries.append(f"{_mean(runs, metric):.3f}")
    return [*entries, f"{1000 * _mean(runs, 'seconds_per_step'):.0f}"]


def _percent(runs: BySeed, seeds: Sequence[int | None]) -> list[float]:
    return [100 * runs[seed].metrics["accuracy"] for seed in seeds]


def _mean(runs: BySeed, metric: str) -> float:
    return statistics.mean(run.metrics[metric] for run in runs.values())


def _mean_and_deviation(values: Sequence[float]) -> str:
    mean = statistics.mean(values)
    return f"{mean:.2f} ± {statistics.stdev(values):.2f}" if len(values) > 1 else f"{mean:.2f}"
