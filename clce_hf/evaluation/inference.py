"""What a classifier makes of a data set: logits and pooled embeddings, in the data set's order."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import default_data_collator

from clce_hf.models.capture import EmbeddingCapture, logits_of


@dataclass(frozen=True)
class Inference:
    """Output of a classifier for n images, on the CPU.

    Attributes:
        logits: float32, shape (n, classes).
        embeddings: the pooled vectors that enter the classification layer, float32, shape (n, d).
        labels: int64, shape (n,).
    """

    logits: Tensor
    embeddings: Tensor
    labels: Tensor


def infer(
    model: nn.Module, dataset: Dataset, batch_size: int = 64, embedding_module: str | None = None
) -> Inference:
    """Run a classifier over a data set, in all processes together where there are several.

    Args:
        model: an image classifier; it is left in evaluation mode.
        dataset: whose items hold what the model takes, and `labels`.
        batch_size: images at a time and process.
        embedding_module: dotted name of the classification layer, where it cannot be found.

    Raises:
        ValueError: if the classification layer cannot be found.
    """
    accelerator = Accelerator()
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=default_data_collator)
    loader = accelerator.prepare_data_loader(loader)
    model = model.to(accelerator.device).eval()
    capture = EmbeddingCapture(model, embedding_module)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        with torch.no_grad():
            for batch in loader:
                labels = batch.pop("labels")
                outputs, embeddings = capture.run(model, batch)
                found = (logits_of(outputs).float(), embeddings.float(), labels)
                parts.append(tuple(t.cpu() for t in accelerator.gather_for_metrics(found)))
    finally:
        capture.remove()
    return Inference(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
