"""What accuracy hides where classes are unequal: accuracy by class, and means over classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassAccuracy:
    """How often the images of one class are told, in [0, 1], and how many of them there are."""

    name: str
    images: int
    accuracy: float


def accuracy_by_class(
    predicted: Tensor, labels: Tensor, names: Sequence[str]
) -> tuple[ClassAccuracy, ...]:
    """Return the accuracy of each class that has images, the worst first.

    Args:
        predicted: class ids, integers, shape (n,).
        labels: integers, shape (n,).
        names: of the classes, by label.
    """
    images = labels.bincount(minlength=len(names))
    right = labels[predicted == labels].bincount(minlength=len(names))
    measured = [
        ClassAccuracy(name, count, hits / count)
        for name, count, hits in zip(names, images.tolist(), right.tolist(), strict=True)
        if count
    ]
    return tuple(sorted(measured, key=lambda one: one.accuracy))


def balanced_accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Mean over classes of their accuracy, in [0, 1]; a class without an image does not count.

    That of `sklearn.metrics.balanced_accuracy_score`.

    Args:
        predicted: class ids, integers, shape (n,).
        labels: integers, shape (n,).
    """
    images = labels.bincount()
    right = labels[predicted == labels].bincount(minlength=len(images))
    return (right[images > 0].double() / images[images > 0]).mean().item()


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """Mean over classes of their F1, the harmonic mean of precision and recall, in [0, 1].

    That of `sklearn.metrics.f1_score` with `average="macro"`: a class counts if it is the label or
    the prediction of any image.

    Args:
        predicted: class ids, integers, shape (n,).
        labels: integers, shape (n,).
    """
    num_classes = int(max(predicted.max(), labels.max())) + 1
    right = labels[predicted == labels].bincount(minlength=num_classes)
    either = labels.bincount(minlength=num_classes) + predicted.bincount(minlength=num_classes)
    return (2 * right[either > 0].double() / either[either > 0]).mean().item()


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int) -> float:
    """Share of images whose class is among the k with the largest logits, in [0, 1].

    Args:
        logits: floating point, shape (n, classes), with more than k classes.
        labels: integers, shape (n,).
        k: positive.
    """
    likeliest = logits.topk(k, dim=1).indices
    return (likeliest == labels[:, None]).any(1).double().mean().item()
