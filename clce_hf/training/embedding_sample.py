"""Some embeddings of an evaluation, kept to be drawn."""

import torch
from torch import Tensor

from clce_hf.loss.pairs import IGNORE_INDEX


class EmbeddingSample:
    """Some embeddings of an evaluation, spread over its images, kept on the CPU."""

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self.start(None)

    def start(self, num_images: int | None) -> None:
        """Forget the last evaluation; `num_images` are to come, None for an unknown number."""
        self._every = 1 if num_images is None else max(1, num_images // self._size)
        self._seen = 0
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, embeddings: Tensor, labels: Tensor) -> None:
        """Keep some of a batch: embeddings of shape (n, d), labels of shape (n,)."""
        first = -self._seen % self._every
        room = self._size - sum(len(kept) for _, kept in self._kept)
        chosen = slice(first, None, self._every)
        self._seen += len(labels)
        if room > 0 and first < len(labels):
            rows = embeddings.detach()[chosen][:room].float().cpu()
            self._kept.append((rows, labels[chosen][:room].cpu()))

    def rows(self) -> tuple[Tensor, Tensor]:
        """Return embeddings, float32 of shape (m, d), and labels, shape (m,), of those labelled."""
        if not self._kept:
            return torch.empty(0, 1), torch.empty(0, dtype=torch.long)
        embeddings, labels = (torch.cat(parts) for parts in zip(*self._kept, strict=True))
        return embeddings[labels != IGNORE_INDEX], labels[labels != IGNORE_INDEX]
