"""The training images that vote for the class of an evaluation image, and their embeddings."""

import logging
from dataclasses import dataclass
from typing import Any, cast

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from transformers import Trainer

from clce_hf.data.labels import required_labels
from clce_hf.data.low_shot import rows_of_each_class
from clce_hf.loss.targets import is_labeled
from clce_hf.loss.unit_length import to_unit_length
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.neighbors import votes_that_fit
from clce_hf.training.beside_training import (
    loader_beside,
    own_random_numbers,
    with_progress,
)
from clce_hf.training.knn_callback import KNNCallback
from clce_hf.training.labels import split_labels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Voters:
    """The images that vote.

    Attributes:
        loader: of them, in their order.
        k: how many of them vote for the class of an evaluation image.
    """

    loader: DataLoader
    k: int


def draw_voters(trainer: Trainer, callback: KNNCallback) -> Voters:
    """Draw the images that vote by the seed of the run.

    Raises:
        ValueError: if there is no data to draw them from, its labels cannot be read, or no image
            has one.
    """
    dataset: Any = callback.train_dataset
    if dataset is None:
        dataset = trainer.train_dataset
    if dataset is None:
        raise ValueError("KNNCallback has no training images: give it a train_dataset.")
    try:
        ids = required_labels(dataset, trainer.label_names, "KNNCallback").ids
    except ValueError as error:
        raise ValueError(
            f"{error} Or give it labeled images: KNNCallback(train_dataset=...)."
        ) from error
    if not is_labeled(ids).any():
        raise ValueError(
            f"KNNCallback has no voters: none of the {len(ids):,} training images has a label. "
            "Give it labeled images: KNNCallback(train_dataset=...)."
        )
    of_each = max(1, callback.max_train_samples // len(ids[is_labeled(ids)].unique()))
    rows = rows_of_each_class(ids, of_each, trainer.args.seed)
    rows = rows[is_labeled(ids[rows])]
    k = votes_that_fit(callback.k, ids[rows].unique(return_counts=True)[1])
    if k < callback.k and trainer.is_world_process_zero():
        logger.warning(
            f"KNNCallback: {k} nearest images vote, not k={callback.k}: half of the classes "
            "or more have fewer voters than that. Raise max_train_samples if there are more images."
        )
    drawn = _selected(dataset, rows.tolist(), trainer.eval_dataset)
    return Voters(loader_beside(trainer, drawn, "KNNCallback"), k)


def _selected(dataset: Any, rows: list[int], evaluation: Any) -> Any:
    if isinstance(dataset, datasets.Dataset):
        return _as_evaluation_reads(dataset, evaluation).select(rows)
    return Subset(dataset, rows)


def _as_evaluation_reads(dataset: datasets.Dataset, evaluation: Any) -> datasets.Dataset:
    """Return the rows with the transform of the evaluation images, where it fits."""
    if isinstance(evaluation, dict):
        evaluation = next(iter(evaluation.values()), None)
    if not isinstance(evaluation, datasets.Dataset) or dataset.features != evaluation.features:
        return dataset
    if {dataset.format["type"], evaluation.format["type"]} != {"custom"}:
        return dataset
    return dataset.with_transform(**evaluation.format["format_kwargs"])


def embed_voters(
    trainer: Trainer, model: nn.Module, capture: EmbeddingCapture, loader: DataLoader
) -> tuple[Tensor, Tensor]:
    """Return unit-length embeddings, shape (m, d), and class ids, in every process.

    Args:
        trainer: of the run.
        model: in evaluation mode, as the evaluation calls it.
        capture: of the bare model.
        loader: of `draw_voters`.

    Raises:
        ValueError: if the images are mixed, so that they have no class.
    """
    accelerator = trainer.accelerator
    parts: list[tuple[Tensor, Tensor]] = []
    with own_random_numbers(trainer.args.seed), torch.no_grad():
        for batch in with_progress(trainer, loader, "Nearest neighbors"):
            inputs, labels = split_labels(
                batch, trainer.label_names, cast(nn.Module, capture.model)
            )
            _check_is_one_class_each(labels)
            with accelerator.autocast():
                _, embeddings = capture.run(model, inputs)
            parts.append(accelerator.gather_for_metrics((to_unit_length(embeddings), labels)))
    embeddings, labels = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return embeddings, labels


def check_first_voters(trainer: Trainer, model: nn.Module, loader: DataLoader) -> None:
    """Read a few of the voters, before training, for what `embed_voters` would refuse after it.

    Random numbers stay as they were.

    Args:
        trainer: of the run.
        model: the bare one.
        loader: of `draw_voters`.

    Raises:
        ValueError: if a batch holds no labels, or the images are mixed.
    """
    # A loader of their own, since one that is not read to its end would count as still being read.
    dataset = cast(Any, loader.dataset)
    first = Subset(dataset, range(min(trainer.args.eval_batch_size, len(dataset))))
    with own_random_numbers(trainer.args.seed):
        for batch in loader_beside(trainer, first, "KNNCallback"):
            _check_is_one_class_each(split_labels(batch, trainer.label_names, model)[1])


def _check_is_one_class_each(labels: Tensor) -> None:
    if labels.dim() > 1:
        raise ValueError(
            "KNNCallback needs images of one class each, and the data collator mixes those of the "
            "training: give it others, KNNCallback(train_dataset=...)."
        )
