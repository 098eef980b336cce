"""Sections of a report: their words and pictures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clce_hf.accuracy_bars import accuracy_bars, draw_accuracy_bars, shots_in_words
from clce_hf.confusion import ConfusedPair, confusion_matrix, draw_confusion, most_confused
from clce_hf.embedding_map import draw_map, project
from clce_hf.pictures import draw_lines, logged
from clce_hf.record import Record
from clce_hf.similarity_histogram import common_limits, draw_similarities, similarities

_CURVES = {
    "loss": "training loss",
    "ce_loss": "cross-entropy in training",
    "contrastive_loss": "contrastive loss in training",
    "eval_loss": "cross-entropy in evaluation",
    "eval_accuracy": "accuracy in evaluation",
}
_MOST_ON_MAP = 500


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


def sections(
    records: Sequence[Record], class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Draw, into `folder`, what the records have data for."""
    first = records[0]
    several_shots = len({record.shots for record in records}) > 1
    several_sizes = len({record.batch_size for record in records}) > 1
    same_size = [record for record in records if record.batch_size == first.batch_size]
    same_shots = [record for record in records if record.shots == first.shots]
    base = [record for record in same_size if record.shots == first.shots]
    at_size = f" Batch size {first.batch_size}." if several_sizes else ""
    at_shots = f" {shots_in_words(first.shots).capitalize()}." if several_shots else ""
    # Of a method that was not trained on the first setting, the first one that it was trained on.
    of_method: dict[str, Record] = {}
    for record in [*base, *records]:
        of_method.setdefault(record.method, record)

    if len(records) > 1:
        yield from _accuracy(same_size, at_size, folder)
    if several_sizes:
        yield from _batch_sizes(same_shots, at_shots, folder)
    yield from _curves(base, at_shots + at_size, folder)
    shown = _two_of(of_method)
    where = "" if len(records) == 1 else f" Seed\u00a0{shown[0].seed}.{at_shots}{at_size}"
    yield from _maps(shown, where, class_names, folder)
    yield from _similarities(list(of_method.values()), where, folder)
    yield from _confusion(shown, where, class_names, folder)


def _two_of(of_method: dict[str, Record]) -> list[Record]:
    names = ["CE", "CLCE"] if {"CE", "CLCE"} <= of_method.keys() else list(of_method)[:2]
    return [of_method[name] for name in names]


def _accuracy(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    if bars := accuracy_bars(records):
        file = folder / "accuracy.png"
        draw_accuracy_bars(bars, file)
        told = [f"{bar.method}, {shots_in_words(bar.shots)}: {bar}" for bar in bars]
        has_intervals = any(len(bar.values) > 1 for bar in bars)
        text = (
            "Mean over seeds with its 95 % interval (Student's t); each dot is one seed."
            if has_intervals
            else "One seed each, so there is no interval."
        )
        yield Section("Accuracy", text + setting, [Figure(file, "", "; ".join(told))])


def _batch_sizes(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    runs: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for record in records:
        if "accuracy" in record.metrics:
            points = runs.setdefault(record.method, {}).setdefault(record.seed, [])
            points.append((record.batch_size, record.metrics["accuracy"]))
    lines = {method: list(of_seed.values()) for method, of_seed in runs.items()}
    sizes = sorted({record.batch_size for record in records})
    file = folder / "batch_size.png"
    labels = {"xlabel": "batch size", "ylabel": "accuracy"}
    if draw_lines(lines, file, **labels, is_share=True, ticks=sizes):
        text = f"Thick: mean over seeds; thin: each seed.{setting}"
        alt = f"Accuracy of {', '.join(lines)} at batch sizes {', '.join(map(str, sizes))}"
        yield Section("Batch size", text, [Figure(file, "", alt)])


def _curves(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    figures = []
    for name, title in _CURVES.items():
        lines: dict[str, list[list[tuple[float, float]]]] = {}
        for record in records:
            lines.setdefault(record.method, []).append(logged(record.log_history, name))
        file = folder / f"curve-{name}.png"
        is_share = name == "eval_accuracy"
        if draw_lines(lines, file, xlabel="step", ylabel=title, is_share=is_share):
            alt = f"{title} over the steps, for {', '.join(lines)}".capitalize()
            figures.append(Figure(file, "", alt))
    if figures:
        text = "Thick: mean over seeds; thin: each seed." if len(records) > 1 else ""
        yield Section("Training", f"{text}{setting}".strip(), figures)


def _maps(
    records: Sequence[Record], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    labels = records[0].labels
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    rows = drawn[:_MOST_ON_MAP].sort().values
    placed = project([record.embeddings[rows] for record in records])
    if placed is None:
        return
    figures = []
    for i, (record, places) in enumerate(zip(records, placed, strict=True), start=1):
        file = folder / f"map-{i}-{_slug(record.method)}.png"
        draw_map(places, labels[rows], class_names, file)
        alt = f"Map of the embeddings of {len(rows)} images by {record.method}, coloured by class"
        placed_rows = {"record": record, "rows": rows.tolist(), "places": places}
        figures.append(Map(file, record.method, alt, **placed_rows))
    together = "one projection (t-SNE) of both" if len(records) > 1 else "a projection (t-SNE)"
    text = (
        f"Each dot is an image, placed by its embedding; {together}, by cosine distance. "
        "Point at a dot, tap it, or walk with the arrow keys, to see the image"
        f"{', and where the other model puts it' if len(records) > 1 else ''}.{setting}"
    )
    yield Section("Embeddings", text, figures)


def _similarities(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    found = [(record, similarities(record.embeddings, record.labels)) for record in records]
    counted = [(record, some) for record, some in found if some is not None]
    if not counted:
        return
    limits = common_limits([some for _, some in counted])
    figures = []
    for i, (record, some) in enumerate(counted, start=1):
        file = folder / f"similarities-{i}-{_slug(record.method)}.png"
        draw_similarities(some, limits, file)
        alt = (
            f"Cosine similarities by {record.method}: mean {some.mean_within:.2f} within classes, "
            f"{some.mean_between:.2f} between"
        )
        figures.append(Figure(file, record.method, alt))
    text = "How alike two images of one class are, and two of different ones; dotted: means."
    yield Section("Similarities", text + setting, figures)


def _confusion(
    records: Sequence[Record], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    if any(record.logits.shape[1] == 0 for record in records):
        return
    figures = []
    for i, record in enumerate(records, start=1):
        matrix = confusion_matrix(record.labels, record.predictions, record.logits.shape[1])
        file = folder / f"confusion-{i}-{_slug(record.method)}.png"
        draw_confusion(matrix, class_names, file)
        mistakes = len(record.labels) - int(matrix.diagonal().sum())
        alt = (
            f"Confusion matrix of {record.method}: {mistakes} of {len(record.labels)} images in "
            "the wrong class"
        )
        pairs = most_confused(record.logits, record.labels)
        figures.append(Figure(file, record.method, alt, pairs))
    text = "Which classes are taken for which, and the pairs with the most mistakes."
    yield Section("Mistakes", text + setting, figures)


def _slug(name: str) -> str:
    """A name for a file, that need not be unique."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
