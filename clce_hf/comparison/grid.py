"""The cells of a comparison: one method, seed, number of shots and batch size each."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from clce_hf.comparison.methods import Method


@dataclass(frozen=True)
class Cell:
    """One training run of a comparison; `shots` and `batch_size` are None for the default."""

    method: Method
    seed: int
    shots: int | None = None
    batch_size: int | None = None

    def __str__(self) -> str:
        parts = [self.method.name, f"seed {self.seed}"]
        if self.shots is not None:
            parts.append(f"{self.shots} images per class")
        if self.batch_size is not None:
            parts.append(f"batch size {self.batch_size}")
        return ", ".join(parts)

    @property
    def name(self) -> str:
        """Name of the cell's folder: readable, and different for every cell."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.method.name.lower()).strip("-")
        facts = [self.method.name, dict(self.method.settings), self.shots, self.batch_size]
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
        return f"{slug}-{digest}-seed{self.seed}"


def grid(
    methods: Sequence[Method],
    seeds: Sequence[int],
    shots: Sequence[int | None] = (None,),
    batch_sizes: Sequence[int | None] = (None,),
) -> list[Cell]:
    """All cells; those of one seed come together, so that early results can be compared."""
    return [
        Cell(method, seed, k, size)
        for seed, k, size, method in product(seeds, shots, batch_sizes, methods)
    ]
