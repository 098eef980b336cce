"""How pictures look, and those made of lines; drawn with the `reports` extra."""

import math
import statistics
import textwrap
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.utils import is_matplotlib_available, is_sklearn_available

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.0
"""Inches. As wide as a phone, so that 10 points can be read on one, too."""

INK, FAINT = "#1f2933", "#7b8794"

_STYLE: dict[str, Any] = {
    "figure.dpi": 200,
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # names are shown as they are, dollars included
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
_TERMS = ("loss", "ce_loss", "contrastive_loss", "eval_loss", "eval_contrastive_loss")

Points = list[tuple[float, float]]


def can_draw() -> bool:
    """Whether what pictures need is installed: `pip install "clce_hf[reports]"`."""
    return is_matplotlib_available() and is_sklearn_available()


def check_can_draw() -> None:
    """Raise `ModuleNotFoundError` unless what pictures need is installed."""
    if not can_draw():
        raise ModuleNotFoundError(
            "Pictures and reports are drawn with Matplotlib and scikit-learn: "
            'pip install "clce_hf[reports]".'
        )


def palette(count: int) -> list[Any]:
    """Colours that colour-blind people can tell apart: Petroff, arXiv 2107.02270.

    They repeat after ten.
    """
    from matplotlib import color_sequences

    colours = color_sequences["petroff10"]
    return [colours[i % len(colours)] for i in range(count)]


@contextmanager
def picture(
    file: Path, height: float = 3.0, *, bare: bool = False
) -> Generator["Axes", None, None]:
    """Give axes to draw on, then write them to a PNG.

    Args:
        file: to write.
        height: in inches.
        bare: whether the axes fill the picture, without a frame, ticks and labels.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout=None if bare else "constrained")
        axes = figure.add_axes((0, 0, 1, 1), frameon=False) if bare else figure.subplots()
        yield axes
        figure.savefig(file)


def logged(log_history: Sequence[Mapping[str, float]], name: str) -> Points:
    """Values of a metric by step; the last one where a step has several."""
    return sorted({entry["step"]: entry[name] for entry in log_history if name in entry}.items())


def draw_training_curve(log_history: list[dict[str, float]], file: Path) -> bool:
    """Draw the terms of the loss over the steps; return whether there was anything to draw."""
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
    """Draw a thick line a name, the mean of its runs, and a thin one for each of several runs.

    Args:
        lines: runs by name, one at least, each of points (x, y); means over fewer than two x are
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

    colours = dict(zip(lines, palette(len(lines)), strict=True))
    labels = {name: textwrap.fill(name, 42) for name in means}
    columns = 2 if max(map(len, means)) <= 20 else 1
    rows = sum(label.count("\n") + 1 for label in labels.values()) / columns
    with picture(file, 2.6 + 0.22 * math.ceil(rows)) as axes:
        for name, mean in means.items():
            runs = lines[name] if len(lines[name]) > 1 else []
            _plot_runs(axes, runs, mean, color=colours[name], label=labels[name])
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
    found = [dict(run) for run in runs]
    common = sorted(set.intersection(*map(set, found)))
    return [(x, statistics.fmean(run[x] for run in found)) for x in common]
