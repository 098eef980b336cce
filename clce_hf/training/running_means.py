"""Weighted means of scalars, kept on the device until they are asked for."""

from accelerate import Accelerator
from torch import Tensor


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
