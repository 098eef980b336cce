"""Cells of a comparison: one method, seed, number of shots and batch size each.

Any number of processes may work on one folder at once. Each takes the next cell that is neither
finished nor in another's hands; a cell's lock is its process's own and goes with it, so that a
killed run is gone on with where it stopped.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from clce_hf.evaluation.record import Record


@dataclass(frozen=True)
class Method:
    """A way to train, by the fields of `CLCEConfig` in which it differs from the others."""

    name: str
    settings: Mapping[str, Any]


METHODS = {
    "ce": Method("CE", {"contrastive_weight": 0.0}),
    "supcon": Method("CE + SupCon", {"variant": "out", "beta": 0.0, "temperature": 0.1}),
    "clce": Method("CLCE", {}),
    "clce-out": Method("CLCE, out", {"variant": "out"}),
    "clce-uniform": Method("CLCE without hard negatives", {"beta": 0.0}),
}
"""Methods by their names on the command line. SupCon is Khosla et al.'s, arXiv 2004.11362."""


@dataclass(frozen=True)
class Cell:
    """One training run of a comparison; `shots` and `batch_size` are None for the default."""

    method: Method
    seed: int
    shots: int | None = None
    batch_size: int | None = None

    @property
    def name(self) -> str:
        """Readable, and different for every cell."""
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


def vary(methods: Sequence[Method], **values: Sequence[float]) -> list[Method]:
    """Replace each method that has a contrastive term by one for each value of some fields.

    Args:
        methods: as they are without the grid.
        values: fields of `CLCEConfig`, each with its values; no values leave a field alone.
    """
    grids = {name: some for name, some in values.items() if some}
    varied = []
    for method in methods:
        if method.settings.get("contrastive_weight") == 0.0 or not grids:
            varied.append(method)
            continue
        for chosen in product(*grids.values()):
            settings = dict(zip(grids, chosen, strict=True))
            told = ", ".join(f"{name} {value:g}" for name, value in settings.items())
            varied.append(Method(f"{method.name}, {told}", {**method.settings, **settings}))
    return varied


def run_cells(cells: Sequence[Cell], folder: Path, train: Callable[[Cell], Record]) -> None:
    """Train all cells that are not done, except those that other processes are at.

    Args:
        cells: to be done.
        folder: keeps a folder for each cell.
        train: trains one and measures it.
    """
    for cell in cells:
        place = folder / cell.name
        place.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(place / "lock", blocking=False):
                if not is_done(cell, folder):
                    train(cell).save(place)
        except Timeout:
            continue


def is_done(cell: Cell, folder: Path) -> bool:
    """Whether a cell's record is complete."""
    return (folder / cell.name / "record.json").exists()


def load_records(cells: Sequence[Cell], folder: Path) -> Iterator[Record]:
    """Read the records of cells that are done."""
    return (Record.load(folder / cell.name) for cell in cells if is_done(cell, folder))
