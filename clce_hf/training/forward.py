"""The forward pass of a step: a batch goes in, logits and embeddings come out.

A batch is forwarded whole, or in training a few images at a time (`gradcache.py`).
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import ModelOutput

from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.logits import logits_by_size, possible_logits
from clce_hf.training.checks import check_carry_gradient
from clce_hf.training.gradcache import forward_in_mini_batches, split_inputs


class Forwarded(NamedTuple):
    """What a forward pass returns.

    Attributes:
        outputs: of the model, as it returns them.
        logits: shape (n, classes).
        embeddings: shape (n, d), projected where there is a head; None if nothing is contrasted.
    """

    outputs: Any
    logits: Tensor
    embeddings: Tensor | None


class Forward:
    """Runs a model on a batch and reads its embeddings.

    Args:
        capture: reads the embeddings; None for logits alone.
        no_sync: takes the model and returns a context in which a backward pass leaves gradients
            unsynchronized, as `Accelerator.no_sync` does.
        num_classes: returns that of the model and whether it is sure, by which logits are told from
            other outputs where nothing is captured.
        is_training: whether the embeddings have to carry a gradient.
    """

    def __init__(
        self,
        capture: EmbeddingCapture | None,
        no_sync: Callable[[nn.Module], AbstractContextManager[Any]],
        num_classes: Callable[[], tuple[int | None, bool]],
        is_training: bool,
    ) -> None:
        self._capture = capture
        self._no_sync = no_sync
        self._num_classes = num_classes
        self._is_training = is_training

    def __call__(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_images: int,
        mini_batch_size: int | None,
    ) -> Forwarded:
        """Forward a batch.

        Args:
            model: as training calls it, wrapped or bare.
            inputs: its keyword arguments.
            num_images: images in the batch.
            mini_batch_size: images to forward at a time, with the gradients of the whole batch;
                None for all, and outside training.

        Raises:
            ValueError: if the classification layer is not the right one, if the logits cannot be
                told from other outputs, or, in training, if the embeddings carry no gradient.
        """
        if mini_batch_size is None:
            return self._whole(model, inputs)

        def forward(mini_batch: dict[str, Any]) -> tuple[Tensor, ...]:
            _, logits, embeddings = self._whole(model, mini_batch)
            return (logits,) if embeddings is None else (logits, embeddings)

        mini_batches = split_inputs(inputs, num_images, mini_batch_size)
        no_sync = functools.partial(self._no_sync, model)
        logits, *embeddings = forward_in_mini_batches(forward, mini_batches, no_sync)
        outputs = ImageClassifierOutput(logits=cast(Any, logits))
        return Forwarded(outputs, logits, embeddings[0] if embeddings else None)

    def _whole(self, model: nn.Module, inputs: dict[str, Any]) -> Forwarded:
        if self._capture is None:
            outputs = model(**inputs)
            possible = possible_logits(outputs)
            is_clear = len(possible) == 1
            logits = possible[0] if is_clear else logits_by_size(possible, *self._num_classes())
            return Forwarded(outputs, logits, None)
        outputs, logits, embeddings = self._capture.run_for_logits(model, inputs)
        # The first pass of mini-batches runs without gradients, and is not checked.
        if self._is_training and torch.is_grad_enabled():
            check_carry_gradient(embeddings, self._capture.model, self._capture.layer)
        return Forwarded(outputs, logits, embeddings)


def loss_and_outputs(loss: Tensor, outputs: Any) -> tuple[Tensor, Any]:
    """Return both as Trainer has them of `compute_loss`: the outputs begin with the loss.

    So models return them when given labels.
    """
    if isinstance(outputs, ModelOutput) and hasattr(outputs, "loss"):
        return loss, dataclasses.replace(cast(Any, outputs), loss=loss)
    if isinstance(outputs, dict):
        return loss, {**outputs, "loss": loss}
    others = (outputs,) if isinstance(outputs, Tensor) else outputs
    first = others[0]  # models that are given no labels leave None in the place of the loss
    return loss, (loss, *(others[1:] if first is None or first.dim() == 0 else others))
