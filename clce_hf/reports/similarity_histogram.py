"""How alike the embeddings of one class are, and those of different ones, as histograms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clce_hf.evaluation.embeddings import class_similarities
from clce_hf.loss.unit_length import to_unit_length
from clce_hf.reports.style import INK, palette, picture

_EDGES = np.linspace(-1.0, 1.0, 101)
_MAX_IMAGES = 2000


@dataclass(frozen=True)
class Similarities:
    """Cosine similarities of pairs of images.

    Attributes:
        within: share of the pairs of one class in each of 100 equal bins of [-1, 1], float64; of
            a sample of the images.
        between: the same for pairs of two classes.
        mean_within: mean similarity of the pairs of one class, of all images.
        mean_between: the same for pairs of two classes.
    """

    within: np.ndarray
    between: np.ndarray
    mean_within: float
    mean_between: float


def similarities(embeddings: Tensor, labels: Tensor) -> Similarities | None:
    """Count the similarities of pairs of at most 2,000 images drawn at random; average over all.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,).

    Returns:
        Shares and means; None if no class of the sample has two images, or it has one class.
    """
    sample = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:_MAX_IMAGES]
    points, classes = to_unit_length(embeddings[sample].float()), labels[sample]
    first, second = torch.triu_indices(len(sample), len(sample), 1)
    # Rounding makes some a little more than 1.
    cosines = (points @ points.T)[first, second].clamp(-1, 1)
    is_within = classes[first] == classes[second]
    within, between = cosines[is_within].numpy(), cosines[~is_within].numpy()
    if not (len(within) and len(between)):
        return None
    means = class_similarities(embeddings, labels)
    return Similarities(
        np.histogram(within, _EDGES)[0] / len(within),
        np.histogram(between, _EDGES)[0] / len(between),
        means["within"],
        means["between"],
    )


def draw_similarities(shown: Similarities, limits: tuple[float, float], file: Path) -> None:
    """Draw the two histograms over [limits[0], 1], up to a share of limits[1]."""
    parts = (
        ("same class", shown.within, shown.mean_within),
        ("different classes", shown.between, shown.mean_between),
    )
    with picture(file, 2.8) as axes:
        for color, (name, shares, mean) in zip(palette(2), parts, strict=True):
            label = f"{name}, mean {mean:z.2f}"
            axes.stairs(shares, _EDGES, fill=True, color=color, alpha=0.6, label=label)
            axes.axvline(mean, color=INK, linewidth=1.2, linestyle=":")
        axes.set(xlim=(limits[0], 1), ylim=(0, limits[1]), yticks=[], xlabel="cosine similarity")
        axes.locator_params("x", nbins=5)
        axes.set_title("share of the pairs", loc="left")
        axes.figure.legend(loc="outside lower center")


def common_limits(shown: Sequence[Similarities]) -> tuple[float, float]:
    """Limits for `draw_similarities` that fit all, so that pictures can be compared."""
    shares = np.stack([part for one in shown for part in (one.within, one.between)])
    first = np.flatnonzero(shares.any(0))[0]
    return math.floor(10 * _EDGES[first].round(2)) / 10, 1.05 * float(shares.max())
