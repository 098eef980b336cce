"""The sections of a report on predictions: accuracy, batch size, curves, calibration, mistakes.

Each takes the runs to show, a sentence on their common setting and the folder to draw into, and
yields nothing where the runs have no data for it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from clce_hf.evaluation.calibration import (
    cross_fitted,
    negative_log_likelihood,
    reliability,
)
from clce_hf.evaluation.record import Run
from clce_hf.reports.accuracy_bars import accuracy_bars, describe_shots, draw_accuracy_bars
from clce_hf.reports.confusion import count_confusions, draw_confusion, most_confused
from clce_hf.reports.curves import Points, draw_lines, logged
from clce_hf.reports.parts import Figure, Section, slug
from clce_hf.reports.reliability import describe_reliability, draw_reliability

_CURVES = {
    "loss": "training loss",
    "ce_loss": "cross-entropy in training",
    "contrastive_loss": "contrastive loss in training",
    "eval_loss": "cross-entropy in evaluation",
    "eval_accuracy": "accuracy in evaluation",
}
_THICK_AND_THIN = "Thick: mean over seeds; thin: each seed."


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


def calibration_section(runs: Sequence[Run], setting: str, folder: Path) -> Iterator[Section]:
    """Reliability diagrams of each model, as it is and with temperatures of other images."""
    if not all(run.predictions.knows_classes and len(run.predictions.labels) > 1 for run in runs):
        return
    figures, not_better = [], []
    for i, run in enumerate(runs, start=1):
        logits, labels = run.predictions.logits, run.predictions.labels
        both = {run.method: logits, f"{run.method}, calibrated": cross_fitted(logits, labels)}
        likelihoods = []
        for title, shown in both.items():
            file = folder / f"reliability-{i}-{len(figures) % 2}-{slug(title)}.png"
            bins = reliability(shown, labels)
            draw_reliability(bins, file)
            likelihoods.append(negative_log_likelihood(shown, labels))
            alt = f"Reliability of {title}: {describe_reliability(bins, likelihoods[-1])}"
            figures.append(Figure(file, title, alt))
        before, after = likelihoods
        if after >= before:
            not_better.append(run.method)
    text = (
        "Accuracy of the images whose predicted class has about the same probability, beside that "
        "probability: bars end on the line where it can be taken as it is. Calibrated: the logits "
        "of each half of the images divided by the temperature that fits the other half."
    )
    if not_better:
        text += (
            f" Of {', '.join(not_better)}, that makes the images no likelier: calibrate() would "
            "leave such a model as it is."
        )
    yield Section("Calibration", text + setting, figures)


def confusion_section(
    runs: Sequence[Run], setting: str, class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Confusion matrices, and the images of the most confused pairs."""
    if not all(run.predictions.knows_classes for run in runs):
        return
    figures = []
    for i, run in enumerate(runs, start=1):
        matrix = count_confusions(run.predictions)
        file = folder / f"confusion-{i}-{slug(run.method)}.png"
        draw_confusion(matrix, class_names, file)
        total = int(matrix.sum())
        alt = (
            f"Confusion matrix of {run.method}: {total - int(matrix.trace())} of {total} images in "
            "the wrong class"
        )
        figures.append(Figure(file, run.method, alt, most_confused(run.predictions)))
    text = "Which classes are taken for which, and the pairs with the most mistakes."
    yield Section("Mistakes", text + setting, figures)
