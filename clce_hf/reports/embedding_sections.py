"""The sections of a report on embeddings: maps, similarities, neighbors.

They take and yield what those of `sections.py` do.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from clce_hf.evaluation.record import Run
from clce_hf.reports.embedding_map import draw_map, project
from clce_hf.reports.gallery import search
from clce_hf.reports.parts import Figure, Map, Section, slug
from clce_hf.reports.similarity_histogram import common_limits, draw_similarities, similarities

_MAX_ON_MAP = 500


def maps_section(
    runs: Sequence[Run], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Maps of the embeddings of up to 500 images, in one projection."""
    labels = runs[0].predictions.labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    rows = order[:_MAX_ON_MAP].sort().values
    projected = project([run.predictions.embeddings[rows] for run in runs])
    if projected is None:
        return
    figures = []
    for i, (run, places) in enumerate(zip(runs, projected, strict=True), start=1):
        file = folder / f"map-{i}-{slug(run.method)}.png"
        draw_map(places, labels[rows], class_names, file)
        alt = f"Map of the embeddings of {len(rows)} images by {run.method}, colored by class"
        figures.append(Map(file, run.method, alt, run=run, rows=rows.tolist(), places=places))
    together = "one projection (t-SNE) of both" if len(runs) > 1 else "a projection (t-SNE)"
    text = (
        f"Each dot is an image, placed by its embedding; {together}, by cosine distance. "
        "Point at a dot, tap it, or walk with the arrow keys, to see the image"
        f"{', and where the other model puts it' if len(runs) > 1 else ''}.{setting}"
    )
    yield Section("Embeddings", text, figures)


def similarities_section(runs: Sequence[Run], setting: str, folder: Path) -> Iterator[Section]:
    """How alike images are, within classes and between them."""
    shown = []
    for run in runs:
        shares = similarities(run.predictions.embeddings, run.predictions.labels)
        if shares is not None:
            shown.append((run, shares))
    if not shown:
        return
    limits = common_limits([shares for _, shares in shown])
    figures = []
    for i, (run, shares) in enumerate(shown, start=1):
        file = folder / f"similarities-{i}-{slug(run.method)}.png"
        draw_similarities(shares, limits, file)
        alt = (
            f"Cosine similarities by {run.method}: mean {shares.mean_within:z.2f} within classes, "
            f"{shares.mean_between:z.2f} between"
        )
        figures.append(Figure(file, run.method, alt))
    text = "How alike two images of one class are, and two of different ones; dotted: means."
    yield Section("Similarities", text + setting, figures)


def gallery_section(runs: Sequence[Run], setting: str) -> Iterator[Section]:
    """Some images, where a search by embeddings is right and where it is wrong."""
    found = search(runs)
    if found is None:
        return
    shown = [*found.successes, *found.failures]
    k = len(next(iter(shown[0].neighbors.values())))
    both = " by both models together" if len(runs) > 1 else ""
    text = (
        f"Each of {len(shown)} images with its {k} nearest others by cosine similarity; ✓ marks "
        f"those of its class, ✗ those of another. Of {found.num_searched} images drawn at random, "
        f"equally many of each class where possible, {found.num_failures} have most of their "
        f"neighbors{both} in other classes: {len(found.failures)} of these are shown last, after "
        f"{len(found.successes)} of the rest, of different classes where possible.{setting}"
    )
    yield Section("Neighbors", text, queries=shown)
