"""How far the confidence of a model can be trusted: accuracy by confidence, as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clce_hf.evaluation.calibration import Reliability
from clce_hf.reports.style import FAINT, INK, palette, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STRIP = 0.3
"""Height, in units of y, of the strip below with the share of the images of each bin."""


def draw_reliability(bins: Reliability, file: Path) -> None:
    """Draw accuracy by confidence, the gap to the confidence, and how many images there are."""
    with picture(file, 4.1) as axes:
        plot_reliability(axes, bins)
        axes.figure.legend(loc="outside lower center", ncols=1)


def plot_reliability(axes: "Axes", bins: Reliability) -> None:
    """Draw on axes, one bar for each bin that has images."""
    from matplotlib.ticker import PercentFormatter

    accuracy, confidence = bins.accuracy.numpy(), bins.confidence.numpy()
    shares = (bins.counts / bins.counts.sum()).numpy()
    edges = np.linspace(0, 1, len(shares) + 1)
    has_images = shares > 0
    left, width = edges[:-1][has_images], edges[1]
    inside: dict[str, Any] = {
        "width": width,
        "align": "edge",
        "edgecolor": "white",
        "linewidth": 0.8,
    }
    color, of_gap = palette(2)
    axes.bar(left, accuracy[has_images], color=color, label="accuracy", **inside)
    gap: dict[str, Any] = {**inside, "edgecolor": of_gap, "hatch": "////", "facecolor": "none"}
    heights = (confidence - accuracy)[has_images]
    axes.bar(left, heights, bottom=accuracy[has_images], label="gap to confidence", **gap)
    axes.plot((0, 1), (0, 1), color=INK, linewidth=1.2, linestyle=":")
    # Below, from the top of the strip down, so that all is read on one axis of confidence.
    top = -0.05
    depths = shares[has_images] / shares.max() * (_STRIP - 0.1)
    label = f"share of the images, up to {100 * shares.max():.0f} %"
    axes.bar(left, -depths, bottom=top, color=FAINT, label=label, **inside)
    axes.set(xlim=(0, 1), ylim=(-_STRIP, 1), yticks=np.linspace(0, 1, 6))
    axes.set(xlabel="confidence: probability of the predicted class")
    axes.set_title(f"calibration error {bins.error:.3f}", loc="left")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def describe_reliability(bins: Reliability, likelihood: float) -> str:
    """Say the numbers of the picture, for those who cannot see it.

    Args:
        bins: that are drawn.
        likelihood: mean negative log-likelihood of the same images.
    """
    rows = zip(bins.confidence.tolist(), bins.accuracy.tolist(), bins.counts.tolist(), strict=True)
    parts = [f"{c:.0%} sure, {a:.0%} right ({n:.0f})" for c, a, n in rows if n > 0]
    return (
        f"calibration error {bins.error:.3f}, negative log-likelihood {likelihood:.3f}; by "
        f"confidence, with the number of images: {'; '.join(parts)}"
    )
