"""Run a classifier over a data set for its logits and pooled embeddings."""

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import default_data_collator

from clce_hf.evaluation.record import Predictions
from clce_hf.models.capture import EmbeddingCapture, logits_of


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
        ValueError: if the classification layer cannot be found.
    """
    accelerator = Accelerator()
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=default_data_collator)
    loader = accelerator.prepare_data_loader(loader)
    model = model.to(accelerator.device).eval()
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    with EmbeddingCapture(model, classification_layer) as capture, torch.no_grad():
        for batch in loader:
            labels = batch.pop("labels")
            outputs, embeddings = capture.run(model, batch)
            tensors = (logits_of(outputs).float(), embeddings.float(), labels)
            parts.append(tuple(t.cpu() for t in accelerator.gather_for_metrics(tensors)))
    return Predictions(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
