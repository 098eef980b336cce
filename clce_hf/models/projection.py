"""A projection head between the pooled embeddings and the contrastive term."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clce_hf.models.classification_layer import PROJECTION_NAME

PROJECTION_FILE = "projection_head.safetensors"


class ProjectionHead(nn.Module):
    """Linear, ReLU, Linear, with a hidden layer as wide as its input (SupCon, arXiv 2004.11362).

    It computes in the dtype of its own weights, whatever enters it.

    Args:
        embedding_dim: length of the pooled embeddings.
        projection_dim: length of the vectors that are contrasted.
        seed: of the initial weights, which leave the global generator where it was.
    """

    def __init__(self, embedding_dim: int, projection_dim: int, seed: int = 0) -> None:
        super().__init__()
        self.sizes = (embedding_dim, projection_dim)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.hidden = nn.Linear(embedding_dim, embedding_dim)
            self.output = nn.Linear(embedding_dim, projection_dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (n, embedding_dim) to (n, projection_dim)."""
        with torch.autocast(embeddings.device.type, enabled=False):
            return self.output(self.hidden(embeddings.to(self.hidden.weight.dtype)).relu())


_HEADS: WeakKeyDictionary[nn.Module, ProjectionHead] = WeakKeyDictionary()
"""Heads of the models that are still there; the models themselves hold no part of ours."""


def projection_for(
    model: nn.Module, layer: nn.Module, projection_dim: int, seed: int
) -> ProjectionHead:
    """Return a head for a layer's input, on the layer's device.

    A head of that size that the model was trained with before, by another trainer, too, is kept.

    Raises:
        ValueError: if the layer has no attribute with the size of its input.
    """
    size = getattr(layer, "in_features", None) or getattr(layer, "in_channels", None)
    if size is None:
        raise ValueError(
            "projection_dim needs the size of the embeddings, but "
            f"{type(layer).__name__} has no in_features: name a linear layer with "
            "classification_layer, or leave projection_dim out."
        )
    head = _HEADS.get(model)
    if head is None or head.sizes != (size, projection_dim):
        head = ProjectionHead(size, projection_dim, seed).to(next(layer.parameters()).device)
        _HEADS[model] = head
    return head


@contextmanager
def attached(model: nn.Module, head: ProjectionHead | None) -> Iterator[None]:
    """Have a head be a child of the model meanwhile; contexts may be nested, None does nothing.

    As a child, the optimizer, the device and whatever wraps the model see it. The model's own
    `save_pretrained` leaves it out.
    """
    if head is None or getattr(model, PROJECTION_NAME, None) is head:
        yield
        return
    ignored = "_keys_to_ignore_on_save"
    before = model.__dict__.get(ignored)
    names = {f"{PROJECTION_NAME}.{name}" for name in head.state_dict()}
    setattr(model, PROJECTION_NAME, head)
    # Into the instance: a PEFT model would hand an attribute on to the model within.
    model.__dict__[ignored] = {*(getattr(model, ignored, None) or ()), *names}
    try:
        yield
    finally:
        delattr(model, PROJECTION_NAME)
        del model.__dict__[ignored]
        if before is not None:
            model.__dict__[ignored] = before


@contextmanager
def detached(model: nn.Module, head: ProjectionHead | None) -> Iterator[None]:
    """Have a head that is attached be no child of the model meanwhile, to load weights without."""
    if head is None or getattr(model, PROJECTION_NAME, None) is not head:
        yield
        return
    delattr(model, PROJECTION_NAME)
    try:
        yield
    finally:
        setattr(model, PROJECTION_NAME, head)


def join_optimizer(optimizer: Optimizer, head: ProjectionHead) -> None:
    """Have an optimizer that was made without the head train it, as its first group says."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    optimizer.param_groups[0]["params"] += [p for p in head.parameters() if id(p) not in known]


def split_projection(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a model's weights into those without the projection head, and those of the head."""
    prefix = f"{PROJECTION_NAME}."  # behind that of torch.compile, where it wraps the model
    of_head = {k.split(prefix)[1]: v for k, v in weights.items() if prefix in k}
    return {k: v for k, v in weights.items() if prefix not in k}, of_head


def write_projection(weights: dict[str, Tensor], folder: str | os.PathLike[str]) -> None:
    """Write a head's weights into a safetensors file of their own in `folder`, made if missing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    safetensors.torch.save_file(contiguous, Path(folder) / PROJECTION_FILE)


def load_projection(head: nn.Module | None, folder: str | os.PathLike[str]) -> None:
    """Read the head's weights from a checkpoint.

    Raises:
        ValueError: if only one of checkpoint and run has a head, or if the sizes differ.
    """
    file = Path(folder) / PROJECTION_FILE
    if head is None:
        if file.exists():
            raise ValueError(
                f"The checkpoint {Path(folder).name} was trained with a projection head "
                f"({PROJECTION_FILE}), but projection_dim is None: set the projection_dim that it "
                "was trained with."
            )
        return
    if not file.exists():
        raise ValueError(
            f"The checkpoint {Path(folder).name} has no {PROJECTION_FILE}, but projection_dim is "
            "set: leave projection_dim out, or start a new run."
        )
    weights = safetensors.torch.load_file(file)
    expected = {name: tuple(weight.shape) for name, weight in head.state_dict().items()}
    saved = {name: tuple(weight.shape) for name, weight in weights.items()}
    if saved != expected:
        raise ValueError(
            f"{PROJECTION_FILE} of {Path(folder).name} does not fit this run's projection head: it "
            f"holds {saved}, the run needs {expected}. Set the projection_dim that it was trained "
            "with."
        )
    head.load_state_dict(weights)
