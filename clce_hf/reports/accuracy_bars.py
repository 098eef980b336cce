"""Accuracy of methods over seeds, as bars."""

import math
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clce_hf.evaluation.paired import half_width
from clce_hf.evaluation.record import Run
from clce_hf.reports.style import INK, palette, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _HEADING, _LINE = 0.5, 0.42, 0.17
"""Inches: of a bar with one line above it, of a heading, of a further line."""
_NAME_WIDTH = 26
"""Characters that leave room for a number beside them."""


@dataclass(frozen=True)
class Bar:
    """Accuracy of a method at a number of training images.

    Attributes:
        method: its name.
        shots: training images of each class; None for all.
        values: accuracy of each seed, in [0, 1].
    """

    method: str
    shots: int | None
    values: tuple[float, ...]

    def __str__(self) -> str:
        mean, interval = 100 * statistics.mean(self.values), 100 * half_width(self.values)
        return f"{mean:.1f} %" if math.isnan(interval) else f"{mean:.1f} ± {interval:.1f} %"


def accuracy_bars(runs: Sequence[Run]) -> list[Bar]:
    """One bar for each number of shots and method, in the order of the runs."""
    accuracies: dict[tuple[int | None, str], list[float]] = {}
    methods = list(dict.fromkeys(run.method for run in runs))
    shots = dict.fromkeys(run.shots for run in runs)
    for run in runs:
        if "accuracy" in run.metrics:
            values = accuracies.setdefault((run.shots, run.method), [])
            values.append(run.metrics["accuracy"])
    return [
        Bar(method, k, tuple(accuracies[k, method]))
        for k in shots
        for method in methods
        if (k, method) in accuracies
    ]


def describe_shots(shots: int | None) -> str:
    """Say how many training images of each class there are; None for all."""
    return "all training images" if shots is None else f"{shots} training images per class"


def draw_accuracy_bars(bars: Sequence[Bar], file: Path) -> None:
    """Draw bars with their intervals, and each seed as a dot; a group for each number of shots."""
    with picture(file, _height(bars) + 0.45) as axes:
        plot_accuracy_bars(axes, bars)


def plot_accuracy_bars(axes: "Axes", bars: Sequence[Bar]) -> None:
    """Draw the bars on axes, from the top down; a unit of y is an inch."""
    from matplotlib.ticker import PercentFormatter

    methods = list(dict.fromkeys(bar.method for bar in bars))
    colors = dict(zip(methods, palette(len(methods)), strict=True))
    y = 0.0
    for heading, group in _groups(bars):
        if heading:
            axes.text(0, y + _HEADING - 0.12, heading, weight="bold")
            y += _HEADING
        for bar in group:
            name = _wrapped(bar.method)
            y += 0.2 + _LINE * (len(name) - 1)
            axes.text(0, y, "\n".join(name), linespacing=1.2)
            axes.text(1, y, str(bar), ha="right", weight="bold")
            _plot_bar(axes, y + 0.16, bar.values, colors[bar.method])
            y += _ROW - 0.2
    axes.set(xlim=(0, 1), ylim=(y, 0), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _plot_bar(axes: "Axes", y: float, values: tuple[float, ...], color: Any) -> None:
    mean = statistics.mean(values)
    axes.barh(y, mean, height=0.2, color=color, alpha=0.75)
    if len(values) > 1:
        axes.errorbar(mean, y, xerr=half_width(values), color=INK, capsize=3, linewidth=1.2)
    dots = {"color": "white", "edgecolor": INK, "linewidth": 0.8, "zorder": 3}
    axes.scatter(values, [y] * len(values), s=12, **dots)


def _groups(bars: Sequence[Bar]) -> list[tuple[str, list[Bar]]]:
    """Bars by number of shots, under a heading where there are several."""
    shots = list(dict.fromkeys(bar.shots for bar in bars))
    headings = [describe_shots(k).capitalize() if len(shots) > 1 else "" for k in shots]
    groups = [[bar for bar in bars if bar.shots == k] for k in shots]
    return list(zip(headings, groups, strict=True))


def _height(bars: Sequence[Bar]) -> float:
    headings = sum(bool(heading) for heading, _ in _groups(bars))
    lines = sum(len(_wrapped(bar.method)) - 1 for bar in bars)
    return _ROW * len(bars) + _LINE * lines + _HEADING * headings


def _wrapped(name: str) -> list[str]:
    return textwrap.wrap(name, _NAME_WIDTH) or [""]
