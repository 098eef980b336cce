"""`clce-hf embed`: the embedding of each image, as a data set to search in."""

import math
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, Image, Value
from torch import Tensor
from transformers import PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor
from transformers.utils import logging

from clce_hf.cli.arguments import HubArguments
from clce_hf.cli.checks import check_can_write
from clce_hf.cli.data_arguments import ImagesArguments
from clce_hf.cli.errors import user_errors
from clce_hf.cli.ranges import COUNT, check_ranges
from clce_hf.data.classes import column_values
from clce_hf.data.transforms import IS_READABLE, evaluation_rows, with_images
from clce_hf.errors import ArgumentError, abbreviate
from clce_hf.evaluation.embedding_file import EmbeddingFile
from clce_hf.evaluation.inference import infer_batches
from clce_hf.models.classification_layer import find_classification_layer
from clce_hf.models.pretrained import load_checkpoint

ENDING = ".parquet"


@dataclass
class EmbedArguments(HubArguments):
    """Which checkpoint embeds, and where the embeddings go."""

    model_name_or_path: str = field(
        default="runs/clce", metadata={"help": "Model on the Hub, or a folder with a checkpoint."}
    )
    output: str = field(
        default="runs/embeddings.parquet", metadata={"help": "The file to write, in Parquet."}
    )
    batch_size: int = field(default=64, metadata={"help": "Images to forward at a time."})
    classification_layer: str | None = field(
        default=None,
        metadata={"help": "Dotted name of the classification layer, where it is not found."},
    )
    skip_unreadable: bool = field(
        default=False, metadata={"help": "Leave out images that cannot be read, and say which."}
    )

    def __post_init__(self) -> None:
        check_ranges(self, {"batch_size": COUNT})
        if Path(self.output).suffix.lower() != ENDING:
            raise ArgumentError(
                "output", f"got {self.output!r}: name a file that ends in {ENDING}."
            )


@dataclass(frozen=True)
class Embedded:
    """What was written.

    Attributes:
        rows: number of embeddings.
        dimensions: of each.
        left_out: images that cannot be read.
    """

    rows: int
    dimensions: int
    left_out: Sequence[str]


def embed(arguments: EmbedArguments, data: ImagesArguments) -> Embedded:
    """Write the embedding of each image, with its label where it has one.

    Several processes share the images; the first one writes. The file is there when it is complete.

    Raises:
        UserError: if the images or the model cannot be had, the file cannot be written, an image
            cannot be read and is not to be left out, or an embedding is not finite.
    """
    with user_errors("preparing the output"):
        _check_output(Path(arguments.output))
    with user_errors(f"loading the images of {data.in_words}"):
        images = data.load(arguments.cache_dir, arguments.token)
    with user_errors(f"loading the model {arguments.model_name_or_path}"):
        model, processor, _ = load_checkpoint(arguments.model_name_or_path, **arguments.hub)
        find_classification_layer(model, arguments.classification_layer)
    with user_errors(f"embedding the images of {data.in_words}"):
        return _write(arguments, images, data.data_dir, model, processor)


def summary(arguments: EmbedArguments, embedded: Embedded) -> str:
    """What was written and what was left out, to be read by people."""
    lines = [
        f"{arguments.output} contains {embedded.rows:,} embeddings of {embedded.dimensions:,} "
        "dimensions."
    ]
    if embedded.left_out:
        lines.append(
            f"Left out, since they cannot be read: {len(embedded.left_out):,} images "
            f"({abbreviate(embedded.left_out)})."
        )
    return "\n".join(lines)


def _check_output(output: Path) -> None:
    check_can_write(str(output.parent), "output")
    if output.is_dir():
        raise ArgumentError("output", f"{str(output)!r} is a folder: name a file.")


def _write(
    arguments: EmbedArguments,
    images: Dataset,
    folder: str | None,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
) -> Embedded:
    transform = evaluation_rows(processor)
    pixels: Any = with_images(images.select_columns("image"), transform, keep_unreadable=True)
    size, layer = arguments.batch_size, arguments.classification_layer
    accelerator = Accelerator()
    batches = infer_batches(model, pixels, size, layer, kept=IS_READABLE)
    parts = logging.tqdm(
        batches,
        total=math.ceil(len(images) / (size * accelerator.num_processes)),
        desc="Embedding",
        disable=not accelerator.is_main_process,
    )
    described = _Described(images, folder)
    end, dimensions, left_out = 0, 0, []
    output = Path(arguments.output)
    with closing(batches), EmbeddingFile(output, described.features) as file:
        for _, embeddings, is_readable in parts:
            rows, dimensions = torch.arange(end, end + len(embeddings)), embeddings.shape[1]
            end += len(embeddings)
            if unreadable := rows[~is_readable].tolist():
                if not arguments.skip_unreadable:
                    with_images(images, transform)[unreadable[0]]  # raises, with the reason
                left_out += described.names(unreadable)
            rows, embeddings = rows[is_readable], embeddings[is_readable]
            described.check_is_finite(rows, embeddings)
            if accelerator.is_main_process and len(rows):
                file.add(described.columns(rows.tolist()), embeddings)
        if end == len(left_out):
            raise ValueError(f"None of the {end:,} images can be read: {abbreviate(left_out)}.")
    return Embedded(end - len(left_out), dimensions, left_out)


class _Described:
    """What is written of a row beside its embedding."""

    def __init__(self, images: Dataset, folder: str | None) -> None:
        self._files = images.select_columns("image").cast_column("image", Image(decode=False))
        self._folder = None if folder is None else os.path.abspath(folder)
        self._labels: np.ndarray | None = None
        label: ClassLabel | Value = Value("int64")
        if "labels" in images.column_names:
            self._labels, label = column_values(images, "labels"), images.features["labels"]
        self._label = label
        name = Value("int64") if folder is None else Value("string")
        self._name = "row" if folder is None else "file_name"
        self.features = Features({self._name: name, "label": label, "class_name": Value("string")})

    def columns(self, rows: list[int]) -> dict[str, list[Any]]:
        """Return the values of these rows by column."""
        labels: list[int | None] = [None] * len(rows)
        names: list[str | None] = [None] * len(rows)
        if self._labels is not None:
            labels = self._labels[rows].tolist()
            names = cast(Any, self._label).int2str(labels)
        found = rows if self._folder is None else self._paths(rows)
        return {self._name: found, "label": labels, "class_name": names}

    def names(self, rows: list[int]) -> list[str]:
        """Return what to call these rows in a message."""
        return [f"row {row}" for row in rows] if self._folder is None else self._paths(rows)

    def check_is_finite(self, rows: Tensor, embeddings: Tensor) -> None:
        """Raise `ValueError` if an embedding is not finite."""
        if bad := rows[~embeddings.isfinite().all(1)].tolist():
            # How many there are in all is not known: the images that follow are not embedded.
            raise ValueError(
                f"Embeddings are not finite, those of {', '.join(self.names(bad[:3]))} for example:"
                " the training of the checkpoint may have diverged."
            )

    def _paths(self, rows: list[int]) -> list[str]:
        paths = [image["path"] for image in self._files[rows]["image"]]
        return [Path(os.path.relpath(path, self._folder)).as_posix() for path in paths]
