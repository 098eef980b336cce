"""What is kept of a trained model to compare it with others."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_FACTS = "record.json"
_TENSORS = "record.safetensors"
_TENSOR_NAMES = ("logits", "embeddings", "labels")


@dataclass(frozen=True, eq=False)
class Record:
    """One trained model, measured on the images to evaluate on.

    Attributes:
        method: how it was trained, such as "CE" or "CLCE", or a checkpoint's name.
        seed: of the training.
        shots: training images of each class; None for all.
        batch_size: images of an optimizer step.
        metrics: by name, such as "accuracy"; shares are in [0, 1].
        log_history: of `TrainerState`; may be empty.
        logits: float32, shape (n, classes); of no classes where the model does not know these.
        embeddings: pooled, float32, shape (n, d).
        labels: int64, shape (n,); the same n images for every record that is compared.
    """

    method: str
    seed: int
    shots: int | None
    batch_size: int
    metrics: dict[str, float]
    log_history: list[dict[str, float]]
    logits: Tensor
    embeddings: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, name)) for name in _TENSOR_NAMES}
        shapes = (self.logits.ndim, self.embeddings.ndim, self.labels.ndim)
        if len(sizes) > 1 or shapes != (2, 2, 1):
            raise ValueError(
                "A record needs logits (n, classes), embeddings (n, d) and labels (n,), got "
                f"{', '.join(str(tuple(getattr(self, name).shape)) for name in _TENSOR_NAMES)}."
            )

    @property
    def predictions(self) -> Tensor:
        """Predicted classes, int64, shape (n,)."""
        return self.logits.argmax(1)

    def save(self, folder: Path) -> None:
        """Write `record.json` and `record.safetensors` into `folder`, which is made if missing.

        The JSON comes last and in one piece, so a folder that has it is complete.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "logits": self.logits.to("cpu", torch.float32).contiguous(),
            "embeddings": self.embeddings.to("cpu", torch.float32).contiguous(),
            "labels": self.labels.to("cpu", torch.int64).contiguous(),
        }
        save_file(tensors, folder / _TENSORS)
        facts = {
            "method": self.method,
            "seed": self.seed,
            "shots": self.shots,
            "batch_size": self.batch_size,
            "metrics": self.metrics,
            "log_history": self.log_history,
        }
        unfinished = folder / f"{_FACTS}.unfinished"
        unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(folder / _FACTS)

    @classmethod
    def load(cls, folder: Path) -> "Record":
        """Read what `save` wrote."""
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        fields: dict[str, Any] = {**facts, **load_file(folder / _TENSORS)}
        return cls(**fields)
