"""How pictures look: size, fonts and colors."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clce_hf.reports.fonts import families, missing_glyphs_told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 4.0
"""Inches: as wide as a phone, so that text of 10 points can be read on one, too."""

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


def palette(count: int) -> list[Any]:
    """Colors that color-blind people can tell apart: Petroff, arXiv 2107.02270.

    They repeat after ten.
    """
    from matplotlib import color_sequences

    colors = color_sequences["petroff10"]
    return [colors[i % len(colors)] for i in range(count)]


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

    with missing_glyphs_told(), rc_context({**_STYLE, "font.family": families()}):
        figure = Figure(figsize=(WIDTH, height), layout=None if bare else "constrained")
        axes = figure.add_axes((0, 0, 1, 1), frameon=False) if bare else figure.subplots()
        yield axes
        figure.savefig(file)
