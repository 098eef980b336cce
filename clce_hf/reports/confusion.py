"""Which classes are taken for which: the matrix of counts, and the most confused pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from clce_hf.evaluation.record import Predictions
from clce_hf.reports.style import INK, WIDTH, picture

_MAX_NUMBERED, _MAX_NAMED, _MAX_SQUARES = 12, 25, 100
"""Classes of a matrix that has numbers, names and squares."""


@dataclass(frozen=True)
class ConfusedPair:
    """A class that was taken for another.

    Attributes:
        truth: label of the class.
        predicted: label of the other class.
        count: images of the class that were taken for the other.
        class_size: images of the class.
        images: rows of some of the mistaken images, from the most certain mistake on.
    """

    truth: int
    predicted: int
    count: int
    class_size: int
    images: list[int]


def count_confusions(predictions: Predictions) -> np.ndarray:
    """Count the images of each class, by row, that were predicted to be of each, by column.

    Returns:
        int64, shape (classes, classes).
    """
    from sklearn.metrics import confusion_matrix

    classes = range(predictions.logits.shape[1])
    labels, predicted = predictions.labels.numpy(), predictions.predicted.numpy()
    return confusion_matrix(labels, predicted, labels=list(classes))


def most_confused(
    predictions: Predictions, *, num_pairs: int = 5, num_images: int = 4
) -> list[ConfusedPair]:
    """Return the pairs of classes with the most mistakes, the largest number first.

    Args:
        predictions: of a model that knows the classes.
        num_pairs: at most.
        num_images: examples of each pair, at most.
    """
    matrix = count_confusions(predictions)
    labels, predicted = predictions.labels, predictions.predicted
    certainty = predictions.logits.float().softmax(1).amax(1)
    mistakes = matrix * ~np.eye(len(matrix), dtype=bool)
    pairs = []
    for index in np.argsort(-mistakes, axis=None, kind="stable")[:num_pairs].tolist():
        truth, other = divmod(index, len(matrix))
        if mistakes[truth, other] == 0:
            break
        rows = torch.nonzero((labels == truth) & (predicted == other))[:, 0]
        examples = rows[certainty[rows].argsort(descending=True)][:num_images]
        count, class_size = int(mistakes[truth, other]), int(matrix[truth].sum())
        pairs.append(ConfusedPair(truth, other, count, class_size, examples.tolist()))
    return pairs


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], file: Path) -> None:
    """Draw a confusion matrix by the shares of each class, with names where they can be read.

    Args:
        matrix: of `count_confusions`.
        class_names: by label.
        file: PNG to write.
    """
    num_classes = len(matrix)
    shares = matrix / matrix.sum(1, keepdims=True).clip(1)
    with picture(file, WIDTH) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        rows, columns = matrix.nonzero()
        if num_classes > _MAX_SQUARES:  # a square would be too small to be seen
            depths = 0.4 + 0.6 * shares[rows, columns]
            axes.scatter(columns, rows, c=depths, s=3, linewidths=0, cmap="Blues", vmin=0, vmax=1)
        if num_classes <= _MAX_NUMBERED:
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                color = "white" if shares[row, column] > 0.5 else INK
                count = str(matrix[row, column])
                axes.text(column, row, count, ha="center", va="center", color=color, size=8)
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


def _shortened(name: str, length: int = 16) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
