"""Logit-adjusted cross-entropy, for training data with rare classes.

Source: Menon et al., "Long-tail learning via logit adjustment", arXiv 2007.07314, section 5.1,
equation 10: the log frequencies of the classes, times tau, are added to the logits in training, so
that the logits themselves, without them, are fitted to the balanced error.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clce_hf.loss.targets import IGNORE_INDEX, class_targets, is_labeled

_IMAGES_OF_AN_EMPTY_CLASS = 0.5
"""A logarithm of 0 would be infinite. As if there was half an image: rarer than any that is there,
and what the loss does to a class without an image stays finite at any tau."""


class LogitAdjustedLoss:
    """Logit-adjusted cross-entropy, the `compute_loss_func` of `Trainer` and `CLCETrainer` alike.

    -log softmax(logits + tau log p)[label], where p are the frequencies of the classes. That is in
    training; where the logits carry no gradient, as in evaluation, it is the cross-entropy, so that
    `eval_loss` compares with other runs. Computed in float32 at least. A class without an image
    counts as half an image.

    Trainer leaves out `label_smoothing_factor` where a `compute_loss_func` is set, so this one has
    a smoothing of its own, in training and in evaluation, as Trainer's.

    Args:
        class_counts: training images of each class, in the order of the model's classes;
            `clce_hf.data.label_counts` counts them.
        tau: scale of the log frequencies, not negative. 0 is cross-entropy; 1, the paper's value,
            is consistent with the balanced error.
        label_smoothing: in [0, 1].

    Raises:
        ValueError: for counts that are negative, not finite or all 0, or a value out of range.
    """

    def __init__(
        self,
        class_counts: Sequence[float] | Tensor,
        tau: float = 1.0,
        label_smoothing: float = 0.0,
    ) -> None:
        counts = torch.as_tensor(class_counts, dtype=torch.float64, device="cpu")
        if counts.dim() != 1 or not (counts.isfinite() & (counts >= 0)).all() or not counts.any():
            raise ValueError(
                "class_counts must hold the number of training images of each class, none negative "
                f"and not all 0, got {class_counts}."
            )
        if not 0.0 <= tau < math.inf:
            raise ValueError(f"tau must be finite and not negative, got {tau}.")
        if not 0.0 <= label_smoothing <= 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")
        self.tau = tau
        self.label_smoothing = label_smoothing
        counts = counts.clamp_min(_IMAGES_OF_AN_EMPTY_CLASS)
        self._adjustment = tau * (counts / counts.sum()).log()

    def __call__(
        self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            outputs: of a model: logits, shape (n, classes), or a mapping that holds them as
                `logits`, or a tuple that begins with them.
            labels: class ids, where -100 is left out, shape (n,) or (n, 1); or class probabilities,
                shape (n, classes).
            num_items_in_batch: labeled images of the optimizer step, by which the sum is divided;
                None for the mean over the labeled images of the batch.

        Raises:
            ValueError: if there is not one label for each image, or not one count for each class.
        """
        logits = _logits(outputs)
        if logits.shape[1] != len(self._adjustment):
            raise ValueError(
                f"class_counts must have one number for each class of the model, {logits.shape[1]} "
                f"of them, got {len(self._adjustment)}."
            )
        targets = class_targets(labels, logits, logits.shape[1])
        is_training = logits.requires_grad
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if is_training:
            self._adjustment = self._adjustment.to(logits.device, logits.dtype)
            logits = logits + self._adjustment
        total = F.cross_entropy(
            logits,
            targets,
            ignore_index=IGNORE_INDEX,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        if num_items_in_batch is None:
            num_items_in_batch = is_labeled(targets).sum().clamp_min(1)
        return total / num_items_in_batch

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self._adjustment)} classes, tau={self.tau}, "
            f"label_smoothing={self.label_smoothing})"
        )


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    return outputs["logits"] if hasattr(outputs, "keys") else outputs[0]
