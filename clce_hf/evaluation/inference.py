"""Run a classifier over a data set for its logits and pooled embeddings."""

from collections.abc import Generator

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import default_data_collator

from clce_hf.evaluation.record import Predictions
from clce_hf.models.capture import EmbeddingCapture


def infer(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 64,
    classification_layer: str | None = None,
) -> Predictions:
    """Run a classifier over a data set; several processes share the images.

    Args:
        model: an image classifier; it is left in evaluation mode.
        dataset: whose items hold what the model takes, and `labels`.
        batch_size: images that a process forwards at a time.
        classification_layer: dotted name of the classification layer, where it cannot be found.

    Returns:
        Logits and embeddings in float32 and labels in int64, on the CPU, in the order of the data
        set, for all of its images in each process.

    Raises:
        ValueError: if the classification layer cannot be found, or the logits cannot be told from
            other outputs.
    """
    parts = infer_batches(model, dataset, batch_size, classification_layer)
    return Predictions(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def infer_batches(
    model: nn.Module,
    dataset: Dataset,
    batch_size: int = 64,
    classification_layer: str | None = None,
    kept: str = "labels",
) -> Generator[tuple[Tensor, Tensor, Tensor], None, None]:
    """Run a classifier as `infer` does, and yield what it returns, part by part.

    Nothing of a part is held when the next one comes.

    Args:
        model: as in `infer`.
        dataset: whose items hold what the model takes, and what is kept.
        batch_size: as in `infer`.
        classification_layer: as in `infer`.
        kept: what of an item is withheld from the model and yielded, a number.

    Yields:
        Logits, embeddings and what is kept, for the next images of all processes.
    """
    accelerator = Accelerator()
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=default_data_collator)
    loader = accelerator.prepare_data_loader(loader)
    model = model.to(accelerator.device).eval()
    capture = EmbeddingCapture(model, classification_layer)
    for batch in loader:
        beside = batch.pop(kept)
        with torch.no_grad():  # which must not hold where a part is used
            _, logits, embeddings = capture.run_for_logits(model, batch)
        tensors = (logits.float(), embeddings.float(), beside)
        logits, embeddings, beside = accelerator.gather_for_metrics(tensors)
        yield logits.cpu(), embeddings.cpu(), beside.cpu()
