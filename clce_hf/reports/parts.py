"""The parts that a report is made of: sections of figures, some of which are maps."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clce_hf.evaluation.record import Run
from clce_hf.reports.confusion import ConfusedPair
from clce_hf.reports.gallery import Query


@dataclass(frozen=True)
class Figure:
    """A picture and what is shown with it.

    Attributes:
        file: PNG.
        title: above it.
        alt: what it shows, in words.
        pairs: the most confused pairs.
    """

    file: Path
    title: str
    alt: str
    pairs: Sequence[ConfusedPair] = ()


@dataclass(frozen=True, kw_only=True)
class Map(Figure):
    """A picture with a dot for each image.

    Attributes:
        run: the model that placed them.
        rows: of these images in the predictions of the run, n of them.
        places: from the lower left corner of the picture, in the unit square, shape (n, 2).
    """

    run: Run
    rows: list[int]
    places: np.ndarray


@dataclass(frozen=True)
class Section:
    """A heading, a text, and figures or images with their nearest others."""

    heading: str
    text: str
    figures: Sequence[Figure] = ()
    queries: Sequence[Query] = ()


def slug(name: str) -> str:
    """A name for a file, which need not be unique."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
