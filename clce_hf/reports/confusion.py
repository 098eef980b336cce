"""Which classes are taken for which."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from clce_hf.reports.style import INK, WIDTH, picture

_MAX_NUMBERED, _MAX_NAMED, _MAX_SQUARES = 12, 25, 100


@dataclass(frozen=True)
class ConfusedPair:
    """A class that was taken for another.

    Attributes:
        truth: label of the class.
        predicted: label of the other.
        count: how many of its images were.
        of: how many images the class has.
        images: some of those, by their rows, from the most certain mistake on.
    """

    truth: int
    predicted: int
    count: int
    of: int
    images: list[int]


def confusion_matrix(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """Count the images of each class, by row, that were predicted to be of each, by column.

    Args:
        labels: integers in [0, classes), shape (n,).
        predictions: the same.
        num_classes: classes there are.

    Returns:
        int64, shape (classes, classes).
    """
    pairs = labels * num_classes + predictions
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def most_confused(
    logits: Tensor, labels: Tensor, *, num_pairs: int = 5, num_images: int = 4
) -> list[ConfusedPair]:
    """Find the pairs of classes with the most mistakes.

    Args:
        logits: floating point, shape (n, classes).
        labels: integers, shape (n,).
        num_pairs: how many at most.
        num_images: how many examples of each at most.

    Returns:
        Pairs, from the most mistakes on.
    """
    predictions = logits.argmax(1)
    matrix = confusion_matrix(labels, predictions, logits.shape[1])
    sizes = matrix.sum(1)
    mistakes = matrix.fill_diagonal_(0).flatten()
    certainty = logits.float().softmax(1).amax(1)
    pairs = []
    for cell in mistakes.sort(descending=True, stable=True).indices[:num_pairs].tolist():
        if mistakes[cell] == 0:
            break
        truth, predicted = divmod(cell, logits.shape[1])
        rows = ((labels == truth) & (predictions == predicted)).nonzero()[:, 0]
        chosen = rows[certainty[rows].argsort(descending=True)][:num_images]
        count, of = int(mistakes[cell]), int(sizes[truth])
        pairs.append(ConfusedPair(truth, predicted, count, of, chosen.tolist()))
    return pairs


def draw_confusion(matrix: Tensor, class_names: Sequence[str], file: Path) -> None:
    """Draw a confusion matrix by the shares of each class, with names where they can be read.

    Args:
        matrix: of `confusion_matrix`.
        class_names: by label.
        file: PNG to write.
    """
    num_classes = len(matrix)
    shares = matrix / matrix.sum(1, keepdim=True).clamp_min(1)
    with picture(file, WIDTH) as axes:
        axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        if num_classes > _MAX_SQUARES:  # a square would be too small to be seen
            rows, columns = matrix.nonzero(as_tuple=True)
            colours = 0.4 + 0.6 * shares[rows, columns]
            axes.scatter(columns, rows, c=colours, s=3, linewidths=0, cmap="Blues", vmin=0, vmax=1)
        if num_classes <= _MAX_NUMBERED:
            for row, column in matrix.nonzero().tolist():
                colour = "white" if shares[row, column] > 0.5 else INK
                count = str(int(matrix[row, column]))
                axes.text(column, row, count, ha="center", va="center", color=colour, size=8)
        if num_classes <= _MAX_NAMED:
            ticks, size = range(num_classes), 9 if num_classes <= _MAX_NUMBERED else 6
            names = [_shortened(name) for name in class_names]
            axes.set_xticks(ticks, names, size=size, rotation=90)
            axes.set_yticks(ticks, names, size=size)
        else:
            axes.set(xticks=[], yticks=[])
        axes.tick_params(length=0)
        axes.set(xlabel="predicted class", ylabel="true class")
        for spine in axes.spines.values():
            spine.set(visible=True)


def _shortened(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
