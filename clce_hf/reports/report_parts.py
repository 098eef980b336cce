"""What a report is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clce_hf.evaluation.record import Record
from clce_hf.reports.confusion import ConfusedPair


@dataclass(frozen=True)
class Figure:
    """A picture and what belongs to it.

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
    """A picture with images at places.

    Attributes:
        record: the model that placed them.
        rows: which images of the record these are, n of them.
        places: from the lower left corner of the picture, in the unit square, shape (n, 2).
    """

    record: Record
    rows: list[int]
    places: np.ndarray


@dataclass(frozen=True)
class Section:
    """A heading, a text and pictures."""

    heading: str
    text: str
    figures: Sequence[Figure]
