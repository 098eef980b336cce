"""Tables of a comparison: means over seeds, and paired differences to cross-entropy."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

from clce_hf.comparison.methods import METHODS
from clce_hf.comparison.ranking import ACCURACY, RANKINGS, Ranking
from clce_hf.evaluation.by_class import accuracy_by_class
from clce_hf.evaluation.paired import PairedDifference, paired_difference
from clce_hf.evaluation.record import Run
from clce_hf.evaluation.table import Table

BASELINE = METHODS["ce"].name

_OTHERS = {
    "accuracy": "accuracy, %",
    "balanced_accuracy": "balanced accuracy, %",
    "negative_log_likelihood": "negative log-likelihood",
    "calibrated_negative_log_likelihood": "calibrated",
    "calibration_error": "calibration error",
}
"""Shown of every comparison, by metric: their names, short where it can be."""

BySeed = dict[int | None, Run]
Setting = tuple[int | None, int | None]
"""Number of shots and batch size."""


def summaries(runs: Sequence[Run], ranking: Ranking = ACCURACY) -> list[Table]:
    """One table for each number of shots and batch size, the best method first.

    The metric that ranks is given as mean and standard deviation over the seeds, its difference to
    cross-entropy as the mean over the seeds that both have, with its 95 % interval by Student's t;
    a win is a seed at which it is better. `calibrated` is the likelihood with a temperature fitted
    on other images.

    Args:
        runs: of one comparison.
        ranking: the metric that methods are ranked by, which all runs have.
    """
    return [_summary(setting, methods, ranking) for setting, methods in _groups(runs).items()]


def check_measured(runs: Sequence[Run], ranking: Ranking) -> None:
    """Raise `ValueError` for a run without the metric that methods are to be ranked by."""
    for run in runs:
        if ranking.metric not in run.metrics:
            raise ValueError(
                f"{ranking.metric} was not measured of {run.method}, seed {run.seed}: rank by one "
                f"of {', '.join(name for name in RANKINGS if name in run.metrics)}."
            )


def by_class(runs: Sequence[Run], class_names: Sequence[str]) -> list[Table]:
    """One table for each number of shots and batch size: the accuracy of each class by method.

    Means over the seeds, in percent. The class that cross-entropy tells worst, or the first method
    where it is not compared, comes first.

    Args:
        runs: of one comparison, measured on the same images.
        class_names: by label.
    """
    return [
        _class_table(setting, methods, class_names) for setting, methods in _groups(runs).items()
    ]


def _groups(runs: Sequence[Run]) -> dict[Setting, dict[str, BySeed]]:
    groups: dict[Setting, dict[str, BySeed]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        groups[run.shots, run.batch_size][run.method][run.seed] = run
    return groups


def _in_words(setting: Setting) -> str:
    shots, batch_size = setting
    images = "all images" if shots is None else f"{shots} images per class"
    return f"trained on {images}, batch size {batch_size}"


def _summary(setting: Setting, methods: dict[str, BySeed], ranking: Ranking) -> Table:
    others = {name: label for name, label in _OTHERS.items() if name != ranking.metric}
    header = (
        *("", ranking.label, f"difference to {BASELINE}", "wins"),
        *(*others.values(), "ms per step"),
    )
    best_first = sorted(
        methods.items(),
        key=lambda named: _mean(named[1], ranking.metric),
        reverse=ranking.higher_is_better,
    )
    rows = [
        _row(name, runs, methods.get(BASELINE), ranking, list(others)) for name, runs in best_first
    ]
    return Table(_in_words(setting).capitalize(), header, rows)


def _row(
    name: str, runs: BySeed, baseline: BySeed | None, ranking: Ranking, others: Sequence[str]
) -> list[str]:
    entries = [name, _mean_and_deviation(_values(runs, list(runs), ranking), ranking.digits)]
    common = [seed for seed in runs if seed in (baseline or {})]
    if baseline is None or name == BASELINE or not common:
        entries += ["", ""]
    else:
        gain = _gain(_values(runs, common, ranking), _values(baseline, common, ranking), ranking)
        interval = f" ± {gain.interval:.{ranking.digits}f}" if gain.pairs > 1 else ""
        entries += [f"{gain.mean:+z.{ranking.digits}f}{interval}", f"{gain.wins} of {gain.pairs}"]
    for metric in others:
        shown = RANKINGS[metric]
        is_known = all(metric in run.metrics for run in runs.values())  # runs may be older
        entries.append(f"{shown.shown(_mean(runs, metric)):.{shown.digits}f}" if is_known else "")
    return [*entries, f"{1000 * _mean(runs, 'seconds_per_step'):.0f}"]


def _gain(ours: list[float], theirs: list[float], ranking: Ranking) -> PairedDifference:
    """The difference, as it is, and the wins of the better values."""
    gain = paired_difference(ours, theirs)
    if ranking.higher_is_better:
        return gain
    wins = paired_difference(theirs, ours).wins
    return PairedDifference(gain.mean, gain.interval, wins, gain.pairs)


def _class_table(setting: Setting, methods: dict[str, BySeed], class_names: Sequence[str]) -> Table:
    accuracies: dict[str, dict[str, list[float]]] = {}
    images = {}
    for method, runs in methods.items():
        accuracies[method] = defaultdict(list)
        for run in runs.values():
            predictions = run.predictions
            for one in accuracy_by_class(predictions.predicted, predictions.labels, class_names):
                accuracies[method][one.name].append(100 * one.accuracy)
                images[one.name] = one.images
    first = accuracies.get(BASELINE, next(iter(accuracies.values())))
    rows = [
        [name, str(images[name]), *(f"{statistics.mean(a[name]):.2f}" for a in accuracies.values())]
        for name in sorted(images, key=lambda name: statistics.mean(first[name]))
    ]
    return Table(f"Accuracy by class, %, {_in_words(setting)}", ("", "images", *methods), rows)


def _values(runs: BySeed, seeds: Sequence[int | None], ranking: Ranking) -> list[float]:
    return [ranking.shown(runs[seed].metrics[ranking.metric]) for seed in seeds]


def _mean(runs: BySeed, metric: str) -> float:
    return statistics.mean(run.metrics[metric] for run in runs.values())


def _mean_and_deviation(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):z.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
