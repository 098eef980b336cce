"""Accuracy of methods over seeds, as bars."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from clce_hf.paired import half_width
from clce_hf.pictures import INK, palette, picture
from clce_hf.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _HEADING = 0.5, 0.42
"""Inches."""


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


def accuracy_bars(records: Sequence[Record]) -> list[Bar]:
    """One bar for each number of shots and method, in the order of the records."""
    found: dict[tuple[int | None, str], list[float]] = {}
    methods = list(dict.fromkeys(record.method for record in records))
    shots = dict.fromkeys(record.shots for record in records)
    for record in records:
        if "accuracy" in record.metrics:
            values = found.setdefault((record.shots, record.method), [])
            values.append(record.metrics["accuracy"])
    return [
        Bar(method, k, tuple(found[k, method]))
        for k in shots
        for method in methods
        if (k, method) in found
    ]


def shots_in_words(shots: int | None) -> str:
    """A number of training images, to be read."""
    return "all training images" if shots is None else f"{shots} training images a class"


def draw_accuracy_bars(bars: Sequence[Bar], file: Path) -> None:
    """Draw bars with their intervals, and each seed as a dot; a group for each number of shots."""
    headings = len({bar.shots for bar in bars})
    height = _ROW * len(bars) + (_HEADING * headings if headings > 1 else 0) + 0.45
    with picture(file, height) as axes:
        plot_accuracy_bars(axes, bars)


def plot_accuracy_bars(axes: "Axes", bars: Sequence[Bar]) -> None:
    """Draw the bars on axes, from the top down; see `draw_accuracy_bars`."""
    from matplotlib.ticker import PercentFormatter

    methods = list(dict.fromkeys(bar.method for bar in bars))
    colours = dict(zip(methods, palette(len(methods)), strict=True))
    has_headings = len({bar.shots for bar in bars}) > 1
    y, last = 0.0, object()
    for bar in bars:
        if has_headings and bar.shots != last:
            axes.text(0, y + _HEADING - 0.12, shots_in_words(bar.shots).capitalize(), weight="bold")
            y, last = y + _HEADING, bar.shots
        middle, colour = y + 0.36, colours[bar.method]
        axes.text(0, y + 0.2, bar.method)
        axes.text(1, y + 0.2, str(bar), ha="right", weight="bold")
        axes.barh(middle, statistics.mean(bar.values), height=0.2, color=colour, alpha=0.75)
        if len(bar.values) > 1:
            axes.errorbar(
                *(statistics.mean(bar.values), middle),
                xerr=half_width(bar.values),
                color=INK,
                capsize=3,
                linewidth=1.2,
            )
        dots = [middle] * len(bar.values)
        axes.scatter(bar.values, dots, s=12, color="white", edgecolor=INK, linewidth=0.8, zorder=3)
        y += _ROW
    axes.set(xlim=(0, 1), ylim=(y, 0), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
