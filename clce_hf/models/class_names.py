"""Names of a model's classes, in its config and beside those of a data set."""

import warnings
from typing import Any

from clce_hf.errors import abbreviate


def class_names(config: Any) -> list[str]:
    """Return the names of a model's classes in the order of its logits; none without a config."""
    named = getattr(config, "id2label", None) or {}
    # Keys may be strings, as Transformers' guide makes them, until the config is saved and loaded.
    is_numbered = all(str(label).isdecimal() for label in named)
    return [str(named[label]) for label in (sorted(named, key=int) if is_numbered else named)]


def label_settings(names: list[str]) -> dict[str, Any]:
    """Return what a config takes for these classes, in the order of the logits."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def check_same_classes(of_model: list[str], of_images: list[str]) -> None:
    """Refuse to score a model whose classes are in another order than the images'.

    Warns of names that it does not know, which may be other words for the same classes.

    Args:
        of_model: names of its classes, in the order of the logits.
        of_images: names of theirs, in the order of the labels.

    Raises:
        ValueError: for another number of classes, or another order.
    """
    places = {name: i for i, name in enumerate(of_model)}
    is_moved = any(places.get(name, i) != i for i, name in enumerate(of_images))
    if len(of_model) != len(of_images) or is_moved:
        raise ValueError(
            f"the model has the classes {abbreviate(of_model)}, and the images "
            f"{abbreviate(of_images)}: they do not match one by one."
        )
    if unknown := [name for name in of_images if name not in places]:
        warnings.warn(
            f"The model does not know the classes {abbreviate(unknown)} by name: they are "
            "matched with its classes by position.",
            stacklevel=2,
        )
