"""What training and evaluation record as they run: means for the log, a sample of embeddings.

Values stay on the device until they are logged, so that no step waits for them.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers.trainer_utils import has_length

from clce_hf.loss.targets import IGNORE_INDEX
from clce_hf.training.objective import Terms

logger = logging.getLogger(__name__)

_BATCHES_BEFORE_WARNING = 5


class RunningMeans:
    """Sums of weighted scalars by name; draining gives their means over all processes."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def add(self, weight: Tensor, **weighted: Tensor) -> None:
        """Add scalars that were already multiplied by the weight."""
        for name, value in weighted.items():
            previous = self._sums.get(name, 0.0)
            self._sums[name] = previous + value.detach().float()
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def drain(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means since the last call, leaving out names of weight 0, and start anew."""
        means = {}
        for name in self._sums:
            pair = (self._sums[name], self._weights[name])
            total, weight = (accelerator.reduce(value, reduction="sum") for value in pair)
            if weight > 0:
                means[name] = (total / weight).item()
        self.reset()
        return means

    def reset(self) -> None:
        """Forget everything added so far."""
        self._sums.clear()
        self._weights.clear()


class EmbeddingSample:
    """A sample of the embeddings of an evaluation, spread over its images.

    Between evaluations it is kept as NumPy's arrays: no tensor of an evaluation outlives it.
    """

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self.start(None)
        self.end()

    def start(self, num_images: int | None) -> None:
        """Forget the last evaluation; `num_images` are to come, None for an unknown number."""
        self._every = 1 if num_images is None else max(1, num_images // self._size)
        self._seen = 0
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, embeddings: Tensor, labels: Tensor) -> None:
        """Sample a batch: embeddings of shape (n, d), labels of shape (n,)."""
        first = -self._seen % self._every
        room = self._size - sum(len(part) for _, part in self._parts)
        chosen = slice(first, None, self._every)
        self._seen += len(labels)
        if room > 0 and first < len(labels):
            rows = embeddings.detach()[chosen][:room].float().cpu()
            self._parts.append((rows, labels[chosen][:room].cpu()))

    def end(self) -> None:
        """Keep the labeled embeddings of the evaluation that ends."""
        embeddings, labels = torch.empty(0, 1), torch.empty(0, dtype=torch.long)
        if self._parts:
            embeddings, labels = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        self._parts = []
        is_labeled = labels != IGNORE_INDEX
        # Copied: an array of `numpy()` holds the tensor that it shares its memory with.
        self._rows = tuple(rows[is_labeled].numpy().copy() for rows in (embeddings, labels))

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return the labeled embeddings, float32 of shape (m, d), and their labels, shape (m,)."""
        embeddings, labels = map(torch.from_numpy, self._rows)
        return embeddings, labels


class Meters:
    """Running means of training and evaluation, a sample of embeddings, and one warning.

    Args:
        is_main_process: whether this process warns and keeps the sample.
    """

    def __init__(self, is_main_process: bool) -> None:
        self._is_main_process = is_main_process
        self.training = RunningMeans()
        self.evaluation = RunningMeans()
        self.sample = EmbeddingSample()
        self.start_training()

    def start_training(self) -> None:
        """Forget what an earlier run recorded."""
        self.training.reset()
        self._interval: dict[str, float] = {}
        self._evaluated: tuple[str, dict[str, float]] = "", {}
        self._batches_seen = 0
        self._without_positive: Tensor | float = 0.0

    def end_interval(self, accelerator: Accelerator) -> None:
        """Average what was recorded since the last time, over all processes."""
        self._interval = self.training.drain(accelerator)

    def take_interval(self) -> dict[str, float]:
        """Return the means of the interval that ended last, once."""
        means, self._interval = self._interval, {}
        return means

    def start_evaluation(self, dataloader: Any, batch_size: int) -> None:
        """Forget what an earlier evaluation recorded; batches of all processes are to come."""
        self.evaluation.reset()
        self.sample.start(len(dataloader) * batch_size if has_length(dataloader) else None)

    def end_evaluation(
        self, dataloader: Any, accelerator: Accelerator, prefix: str
    ) -> float | None:
        """Average an evaluation; return the loss of a stream, None where Trainer weights it."""
        self.sample.end()
        means = self.evaluation.drain(accelerator)
        loss = means.pop("loss", None)
        self._evaluated = prefix, means
        return None if has_length(getattr(dataloader, "dataset", None)) else loss

    def evaluated_with(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the contrastive term of the evaluation that these are the metrics of."""
        prefix, means = self._evaluated
        is_same = f"{prefix}_loss" in metrics
        return {f"{prefix}_{name}": mean for name, mean in means.items() if is_same}

    def take_evaluated_with(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the same, once."""
        taken, self._evaluated = self.evaluated_with(metrics), ("", {})
        return taken

    def add_step(self, terms: Terms, share: float) -> None:
        """Record the terms of a micro-batch, which is that share of an optimizer step."""
        weight = terms.loss.new_full((), share)
        self.training.add(weight, ce_loss=terms.cross_entropy)
        if terms.contrastive is None or terms.num_positives is None:
            return
        self.training.add(weight, contrastive_loss=terms.contrastive)
        num_images = terms.loss.new_full((), len(terms.num_positives))
        self.training.add(num_images, positives_per_anchor=terms.num_positives.sum())
        if not terms.fills_memory:
            self._warn_of_missing_positives(terms.num_positives)

    def add_evaluation(self, terms: Terms, embeddings: Tensor | None, labels: Tensor) -> None:
        """Record the terms of a batch of an evaluation, and sample its embeddings, shape (n, d)."""
        num_labels = (labels != IGNORE_INDEX).sum()
        self.evaluation.add(num_labels, loss=terms.cross_entropy * num_labels)
        if terms.contrastive is None or terms.num_positives is None or embeddings is None:
            return
        num_anchors = (terms.num_positives > 0).sum()
        self.evaluation.add(num_anchors, contrastive_loss=terms.contrastive * num_anchors)
        if self._is_main_process:
            self.sample.add(embeddings, labels)

    def _warn_of_missing_positives(self, num_positives: Tensor) -> None:
        """Say once, after a few batches, that most images had no other of their class."""
        self._batches_seen += 1
        if self._batches_seen > _BATCHES_BEFORE_WARNING:
            return
        self._without_positive += 1.0 - num_positives.clamp_max(1).float().mean()
        share = self._without_positive / _BATCHES_BEFORE_WARNING
        if self._batches_seen == _BATCHES_BEFORE_WARNING and share > 0.5:
            logger.log(
                logging.WARNING if self._is_main_process else logging.DEBUG,
                f"{share:.0%} of the images had no other image of their class to be contrasted "
                "with, neither in the batch nor in the memory of past ones, so the contrastive "
                "term skips them. Raise memory_size in CLCEConfig, set samples_per_class (4 "
                "divides most batch sizes), or enlarge per_device_train_batch_size.",
            )
