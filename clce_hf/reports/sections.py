"""The sections of a report: accuracy, batch size, curves, maps, similarities and mistakes.

Each takes the runs to show, a sentence on their common setting and the folder to draw into, and
yields nothing where the runs have no data for it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from clce_hf.evaluation.record import Run
from clce_hf.reports.accuracy_bars import accuracy_bars, describe_shots, draw_accuracy_bars
from clce_hf.reports.confusion import count_confusions, draw_confusion, most_confused
from clce_hf.reports.curves import Points, draw_lines, logged
from clce_hf.reports.embedding_map import draw_map, project
from clce_hf.reports.parts import Figure, Map, Section
from clce_hf.reports.similarity_histogram import common_limits, draw_similarities, similarities

_CURVES = {
    "loss": "training loss",
    "ce_loss": "cross-entropy in training",
    "contrastive_loss": "contrastive loss in training",
    "eval_loss": "cross-entropy in evaluation",
    "eval_accuracy": "accuracy in evaluation",
}
_THICK_AND_THIN = "Thick: mean over seeds; thin: each seed."
_MAX_ON_MAP = 500


def accuracy_section(runs: Sequence[Run], setting: str, folder: Path) -> Iterator[Section]:
    """Accuracy of each method, in groups by shots."""
    if bars := accuracy_bars(runs):
        file = folder / "accuracy.png"
        draw_accuracy_bars(bars, file)
        alt = "; ".join(f"{bar.method}, {describe_shots(bar.shots)}: {bar}" for bar in bars)
        has_intervals = any(len(bar.values) > 1 for bar in bars)
        text = (
            "Mean over seeds with its 95 % interval (Student's t); each dot is one seed."
            if has_intervals
            else "One seed each, so there is no interval."
        )
        yield Section("Accuracy", text + setting, [Figure(file, "", alt)])


def batch_sizes_section(runs: Sequence[Run], setting: str, folder: Path) -> Iterator[Section]:
    """Accuracy of each method over the batch size."""
    points: dict[str, dict[int | None, Points]] = {}  # by method and seed
    for run in runs:
        if "accuracy" in run.metrics and run.batch_size is not None:
            of_seed = points.setdefault(run.method, {}).setdefault(run.seed, [])
            of_seed.append((run.batch_size, run.metrics["accuracy"]))
    lines = {method: list(map(sorted, seeds.values())) for method, seeds in points.items()}
    sizes = sorted({run.batch_size for run in runs if run.batch_size is not None})
    file = folder / "batch_size.png"
    labels = {"xlabel": "batch size", "ylabel": "accuracy"}
    if draw_lines(lines, file, **labels, is_share=True, ticks=sizes):
        has_several = len({run.seed for run in runs}) > 1
        text = f"{_THICK_AND_THIN if has_several else 'One seed each.'}{setting}"
        alt = f"Accuracy of {', '.join(lines)} at batch sizes {', '.join(map(str, sizes))}"
        yield Section("Batch size", text, [Figure(file, "", alt)])


def curves_section(runs: Sequence[Run], setting: str, folder: Path) -> Iterator[Section]:
    """What was logged of each method, over the steps."""
    figures = []
    for name, title in _CURVES.items():
        lines: dict[str, list[Points]] = {}
        for run in runs:
            lines.setdefault(run.method, []).append(logged(run.log_history, name))
        file = folder / f"curve-{name}.png"
        is_share = name == "eval_accuracy"
        if draw_lines(lines, file, xlabel="step", ylabel=title, is_share=is_share):
            alt = f"{title.capitalize()} over the steps, for {', '.join(lines)}"
            figures.append(Figure(file, "", alt))
    if figures:
        has_several = len({run.seed for run in runs}) > 1
        text = _THICK_AND_THIN if has_several else ""
        yield Section("Training", f"{text}{setting}".strip(), figures)


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
        file = folder / f"map-{i}-{_slug(run.method)}.png"
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
        file = folder / f"similarities-{i}-{_slug(run.method)}.png"
        draw_similarities(shares, limits, file)
        alt = (
            f"Cosine similarities by {run.method}: mean {shares.mean_within:.2f} within classes, "
            f"{shares.mean_between:.2f} between"
        )
        figures.append(Figure(file, run.method, alt))
    text = "How alike two images of one class are, and two of different ones; dotted: means."
    yield Section("Similarities", text + setting, figures)


def confusion_section(
    runs: Sequence[Run], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Confusion matrices, and the images of the most confused pairs."""
    if not all(run.predictions.knows_classes for run in runs):
        return
    figures = []
    for i, run in enumerate(runs, start=1):
        matrix = count_confusions(run.predictions)
        file = folder / f"confusion-{i}-{_slug(run.method)}.png"
        draw_confusion(matrix, class_names, file)
        total = int(matrix.sum())
        alt = (
            f"Confusion matrix of {run.method}: {total - int(matrix.trace())} of {total} images in "
            "the wrong class"
        )
        figures.append(Figure(file, run.method, alt, most_confused(run.predictions)))
    text = "Which classes are taken for which, and the pairs with the most mistakes."
    yield Section("Mistakes", text + setting, figures)


def _slug(name: str) -> str:
    """A name for a file, which need not be unique."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
