"""The rows of the training data that the classification layer starts from."""

from typing import Any

import datasets
from torch import Tensor
from torch.utils.data import Subset
from transformers import Trainer

from clce_hf.data.labels import Labels, how_to_name_them, required_labels
from clce_hf.data.low_shot import rows_of_each_class
from clce_hf.loss.targets import is_labeled
from clce_hf.training.class_sizes import images_per_class

IMAGES_PER_CLASS = 50
"""Images whose embeddings are averaged, at most; more hardly move a mean."""

_FEWEST_PER_CLASS, _MOST_IMAGES = 5, 50_000
"""Of very many classes, fewer images each: minutes of forward passes at most."""


def rows_to_start_from(trainer: Trainer) -> tuple[Any, Labels]:
    """Return a few rows of each class as a data set, and their class ids.

    Raises:
        ValueError: if the training data has no rows to draw, or its labels cannot be read.
    """
    dataset: Any = trainer.train_dataset
    labels = required_labels(dataset, trainer.label_names, "head_init")
    of_each = max(_FEWEST_PER_CLASS, _MOST_IMAGES // len(labels.ids.unique()))
    rows = rows_of_each_class(labels.ids, min(of_each, IMAGES_PER_CLASS), trainer.args.seed)
    rows = rows[is_labeled(labels.ids[rows])]
    drawn = Labels(labels.ids[rows], labels.source)
    if isinstance(dataset, datasets.Dataset):
        return dataset.select(rows.tolist()), drawn
    return Subset(dataset, rows.tolist()), drawn


def check_same_classes(dataset: Any, labels: Labels, targets: Tensor) -> None:
    """Raise `ValueError` if images of a data set were drawn by other labels than training sees.

    Args:
        dataset: for the error.
        labels: of the rows that were drawn.
        targets: of these rows in the batches: class ids or probabilities.
    """
    drawn, seen = images_per_class(labels.ids), images_per_class(targets)
    if drawn is None or seen is None or drawn.sum() != seen.sum():
        return
    sizes = [counts[counts > 0].sort().values.tolist() for counts in (drawn, seen)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"head_init drew images of each class by {labels.source} of the training data, but "
            f"training sees other labels: by these, the {drawn.sum()} images are not as many of "
            f"each class. To name the labels that are trained, {how_to_name_them(dataset)}"
        )
