"""Sections of a report on images: their embeddings and what they are taken for.

Each takes the records to show, a sentence on their common setting and the folder to draw into, and
gives nothing where the records have no data for it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from clce_hf.evaluation.record import Record
from clce_hf.reports.confusion import confusion_matrix, draw_confusion, most_confused
from clce_hf.reports.embedding_map import draw_map, project
from clce_hf.reports.report_parts import Figure, Map, Section
from clce_hf.reports.similarity_histogram import common_limits, draw_similarities, similarities

_MOST_ON_MAP = 500


def maps_section(
    records: Sequence[Record], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Maps of the embeddings of up to 500 images, in one projection."""
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


def similarities_section(
    records: Sequence[Record], setting: str, folder: Path
) -> Iterator[Section]:
    """How alike images are, within classes and between them."""
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


def confusion_section(
    records: Sequence[Record], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Confusion matrices, and the images of the most confused pairs."""
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
