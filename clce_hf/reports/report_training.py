"""Sections of a report on what training came to: accuracy, batch size, curves.

Each takes the records to show, a sentence on their common setting and the folder to draw into, and
gives nothing where the records have no data for it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from clce_hf.evaluation.record import Record
from clce_hf.reports.accuracy_bars import accuracy_bars, draw_accuracy_bars, shots_in_words
from clce_hf.reports.report_parts import Figure, Section
from clce_hf.reports.style import draw_lines, logged

_CURVES = {
    "loss": "training loss",
    "ce_loss": "cross-entropy in training",
    "contrastive_loss": "contrastive loss in training",
    "eval_loss": "cross-entropy in evaluation",
    "eval_accuracy": "accuracy in evaluation",
}
_THICK_AND_THIN = "Thick: mean over seeds; thin: each seed."


def accuracy_section(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    """Accuracy of each method, in groups by shots."""
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


def batch_sizes_section(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    """Accuracy of each method over the batch size."""
    runs: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for record in records:
        if "accuracy" in record.metrics:
            points = runs.setdefault(record.method, {}).setdefault(record.seed, [])
            points.append((record.batch_size, record.metrics["accuracy"]))
    lines = {method: [sorted(run) for run in of.values()] for method, of in runs.items()}
    sizes = sorted({record.batch_size for record in records})
    file = folder / "batch_size.png"
    labels = {"xlabel": "batch size", "ylabel": "accuracy"}
    if draw_lines(lines, file, **labels, is_share=True, ticks=sizes):
        has_several = len({record.seed for record in records}) > 1
        text = f"{_THICK_AND_THIN if has_several else 'One seed each.'}{setting}"
        alt = f"Accuracy of {', '.join(lines)} at batch sizes {', '.join(map(str, sizes))}"
        yield Section("Batch size", text, [Figure(file, "", alt)])


def curves_section(records: Sequence[Record], setting: str, folder: Path) -> Iterator[Section]:
    """What was logged of each method, over the steps."""
    figures = []
    for name, title in _CURVES.items():
        lines: dict[str, list[list[tuple[float, float]]]] = {}
        for record in records:
            lines.setdefault(record.method, []).append(logged(record.log_history, name))
        file = folder / f"curve-{name}.png"
        is_share = name == "eval_accuracy"
        if draw_lines(lines, file, xlabel="step", ylabel=title, is_share=is_share):
            alt = f"{title.capitalize()} over the steps, for {', '.join(lines)}"
            figures.append(Figure(file, "", alt))
    if figures:
        has_several = len({record.seed for record in records}) > 1
        text = _THICK_AND_THIN if has_several else ""
        yield Section("Training", f"{text}{setting}".strip(), figures)
