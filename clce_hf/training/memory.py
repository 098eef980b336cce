"""Cross-batch memory: embeddings of recent batches, contrasted with like those of the batch.

Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, arXiv 1912.06798. In a
small batch, or with many classes, most images have no other of their class. Embeddings change
slowly, so those of recent batches can stand in. No gradient flows to them.
"""

import torch
from torch import Tensor

from clce_hf.loss.distributed import Keys
from clce_hf.loss.targets import class_probabilities, is_labeled


class EmbeddingMemory:
    """The most recent embeddings of training and their targets.

    They lie in a ring: once it is full, new embeddings take the places of the oldest.

    Args:
        size: how many embeddings it holds at most; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._clear()

    def _clear(self) -> None:
        self._next = 0
        self._length = 0
        self._ring: Keys | None = None

    @property
    def is_full(self) -> bool:
        """Whether it will never hold more than now."""
        return self._length == self._size

    def keys(self) -> Keys | None:
        """Return what it holds, in no order that matters; None while it holds nothing."""
        if self._ring is None:
            return None
        return Keys(*(rows[: self._length] for rows in self._ring))

    def add(self, keys: Keys) -> None:
        """Take in a batch, shape (n, d), without its graph; of more than fits, the last rows."""
        if self._size == 0:
            return
        newest = Keys(*(rows.detach()[-self._size :] for rows in keys))
        if self._ring is None:
            self._ring = Keys(*(rows.new_empty(self._size, *rows.shape[1:]) for rows in newest))
        count = len(newest.targets)
        places = torch.arange(self._next, self._next + count, device=newest.targets.device)
        for ring, rows in zip(self._ring, newest, strict=True):
            ring[places % self._size] = rows
        self._next = (self._next + count) % self._size
        self._length = min(self._length + count, self._size)

    def match(self, targets: Tensor, num_classes: int) -> Tensor:
        """Make the targets of a batch and of the memory of one kind, and return the batch's.

        A collator that mixes some batches gives probabilities for these and class ids for others:
        then ids become one-hot.

        Args:
            targets: class ids, shape (n,), or probabilities, shape (n, classes).
            num_classes: of the model.

        Raises:
            ValueError: if a class id to be made one-hot is -100.
        """
        held = self.keys()
        if held is None or held.targets.dim() == targets.dim():
            return targets
        dtype = held.embeddings.dtype
        if targets.dim() == 1:
            return class_probabilities(targets, num_classes, dtype)
        if self.is_full:  # then the oldest row, the first to make room, is the next
            held = Keys(*(rows.roll(-self._next, dims=0) for rows in held))
        labeled = is_labeled(held.targets)
        probabilities = class_probabilities(held.targets[labeled], num_classes, dtype)
        self._clear()
        self.add(Keys(held.embeddings[labeled], probabilities))
        return targets

    def state_dict(self) -> dict[str, Tensor]:
        """Return tensors from which `load_state_dict` restores the memory; none if it is empty."""
        held = self.keys()
        if held is None:
            return {}
        next_place = torch.tensor(self._next)
        return {"embeddings": held.embeddings, "targets": held.targets, "next": next_place}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """Restore a memory; of one of another size, the newest embeddings that fit.

        Args:
            state: what `state_dict` returned.
            device: of the embeddings of training.
        """
        self._clear()
        if not state:
            return
        first = int(state["next"])  # the oldest row, if the ring was full
        held = Keys(state["embeddings"].to(device), state["targets"].to(device))
        if len(held.targets) == self._size:
            # In the same places: sums over the ring are then the same to the last digit.
            self._next = first
        self.add(Keys(*(rows.roll(-first, dims=0) for rows in held)))
