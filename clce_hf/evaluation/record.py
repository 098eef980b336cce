"""What is kept of a trained model to compare it with others, in memory and in a folder."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RECORD_FILE = "record.json"
_TENSORS_FILE = "record.safetensors"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Output of a classifier for n images.

    Attributes:
        logits: floating point, shape (n, classes); shape (n, 0) if the model does
            not know the classes of the images.
        embeddings: the pooled vectors that enter the classification layer, floating point, shape
            (n, d).
        labels: the true classes, integers, shape (n,).

    Raises:
        ValueError: if the shapes do not fit each other.
    """

    logits: Tensor
    embeddings: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        tensors = (self.logits, self.embeddings, self.labels)
        if len({len(t) for t in tensors}) > 1 or [t.ndim for t in tensors] != [2, 2, 1]:
            raise ValueError(
                "Predictions need logits (n, classes), embeddings (n, d) and labels (n,), got "
                f"{', '.join(str(tuple(t.shape)) for t in tensors)}."
            )

    @property
    def knows_classes(self) -> bool:
        """Whether the model knows the classes of the images."""
        return self.logits.shape[1] > 0

    @property
    def predicted(self) -> Tensor:
        """Predicted classes, int64, shape (n,)."""
        return self.logits.argmax(1)


@dataclass(frozen=True, eq=False)
class Run:
    """One trained model, measured on images that it was not trained on.

    Attributes:
        method: how it was trained, such as "CE" or "CLCE", or a checkpoint's name.
        predictions: for the images; compared runs have those of the same images.
        metrics: by name, such as "accuracy"; shares are in [0, 1].
        seed: of the training; None where it is not known.
        shots: training images of each class; None for all.
        batch_size: images of an optimizer step; None where it is not known.
        log_history: of `TrainerState`; may be empty.
    """

    method: str
    predictions: Predictions
    metrics: dict[str, float]
    seed: int | None = None
    shots: int | None = None
    batch_size: int | None = None
    log_history: list[dict[str, float]] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str | int | None]:
        """What tells runs apart: method, seed, shots and batch size."""
        return {name: getattr(self, name) for name in ("method", "seed", "shots", "batch_size")}

    def save(self, folder: Path) -> None:
        """Write `record.json` and `record.safetensors` into `folder`, which is made if missing.

        The tensors are written as float32 and int64. The JSON comes last and in one piece, so a
        folder that has it is complete.
        """
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "logits": self.predictions.logits.to("cpu", torch.float32).contiguous(),
            "embeddings": self.predictions.embeddings.to("cpu", torch.float32).contiguous(),
            "labels": self.predictions.labels.to("cpu", torch.int64).contiguous(),
        }
        save_file(tensors, folder / _TENSORS_FILE)
        facts = {**self.settings, "metrics": self.metrics, "log_history": self.log_history}
        unfinished = folder / f"{RECORD_FILE}.unfinished"
        unfinished.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        unfinished.replace(folder / RECORD_FILE)

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Read what `save` wrote."""
        facts = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        return cls(predictions=Predictions(**load_file(folder / _TENSORS_FILE)), **facts)
