"""Pictures made of lines: what was logged over the steps, a metric over the batch size."""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clce_hf.reports.style import palette, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TERMS = ("loss", "ce_loss", "contrastive_loss", "eval_loss", "eval_contrastive_loss")

Points = list[tuple[float, float]]
"""Pairs (x, y)."""


def logged(log_history: Sequence[Mapping[str, float]], name: str) -> Points:
    """Values of a metric by step; the last one where a step has several."""
    return sorted({entry["step"]: entry[name] for entry in log_history if name in entry}.items())


def draw_training_curve(log_history: list[dict[str, float]], file: Path) -> bool:
    """Draw the terms of the loss over the steps.

    Args:
        log_history: of `TrainerState`.
        file: PNG to write.

    Returns:
        Whether there was anything to draw.
    """
    lines = {name: [logged(log_history, name)] for name in _TERMS}
    return draw_lines(lines, file, xlabel="step", ylabel="loss")


def draw_lines(
    lines: Mapping[str, Sequence[Points]],
    file: Path,
    *,
    xlabel: str,
    ylabel: str,
    is_share: bool = False,
    ticks: Sequence[float] = (),
) -> bool:
    """Draw a thick line per name, the mean of its runs, and a thin one for each of several runs.

    Args:
        lines: at least one run by name, each of points (x, y); means over fewer than two x are
            left out.
        file: PNG to write.
        xlabel: what x is.
        ylabel: what y is.
        is_share: whether y is a share, to be shown in percent.
        ticks: values of x to mark, on a logarithmic axis; none for a linear one.

    Returns:
        Whether there was anything to draw.
    """
    means = {name: mean for name, runs in lines.items() if len(mean := _mean(runs)) > 1}
    if not means:
        return False
    from matplotlib.ticker import PercentFormatter

    colors = dict(zip(lines, palette(len(lines)), strict=True))
    labels = {name: textwrap.fill(name, 42) for name in means}
    columns = 2 if max(map(len, means)) <= 20 else 1
    rows = sum(label.count("\n") + 1 for label in labels.values()) / columns
    with picture(file, 2.6 + 0.22 * math.ceil(rows)) as axes:
        for name, mean in means.items():
            runs = lines[name] if len(lines[name]) > 1 else []
            _plot_runs(axes, runs, mean, color=colors[name], label=labels[name])
        if ticks:
            axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        if is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
        axes.set(xlabel=xlabel)
        axes.set_title(ylabel, loc="left")
        axes.grid()
        if len(lines) > 1:
            axes.figure.legend(loc="outside lower center", ncols=columns)
    return True


def _plot_runs(axes: "Axes", runs: Sequence[Points], mean: Points, color: Any, label: str) -> None:
    for run in runs:
        axes.plot(*zip(*run, strict=True), color=color, alpha=0.5, linewidth=0.8)
    marker = "." if len(mean) < 50 else ""
    style: dict[str, Any] = {"linewidth": 2, "marker": marker, "zorder": 3}
    axes.plot(*zip(*mean, strict=True), color=color, label=label, **style)


def _mean(runs: Sequence[Points]) -> Points:
    """The mean over runs, where all of them have a value."""
    values = [dict(run) for run in runs]
    common = sorted(set.intersection(*map(set, values)))
    return [(x, statistics.fmean(run[x] for run in values)) for x in common]
