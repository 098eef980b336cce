"""Images and the others that are nearest to them: where a search by embeddings is right and wrong.

Failures are few where a model is good, so half of the images that are shown are failures as far as
there are any.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clce_hf.evaluation.record import Run
from clce_hf.evaluation.retrieval import nearest_others

_MAX_SEARCHED, _MAX_SHOWN = 200, 12
_NEIGHBORS = 5


@dataclass(frozen=True)
class Query:
    """An image and its nearest others, as rows of the predictions.

    Attributes:
        image: its row.
        neighbors: rows of the others by method, the nearest first.
    """

    image: int
    neighbors: dict[str, list[int]]


@dataclass(frozen=True)
class Gallery:
    """Some of the images whose nearest others were searched for.

    Attributes:
        successes: images with at least half of the nearest others in their class.
        failures: the other kind; twelve with the successes, or fewer where there are no more.
        num_searched: images that were searched for.
        num_failures: how many of them are failures.
    """

    successes: list[Query]
    failures: list[Query]
    num_searched: int
    num_failures: int


def search(runs: Sequence[Run]) -> Gallery | None:
    """Search for the nearest others of at most 200 images, and choose up to twelve to show.

    The images are drawn at random from those that share their class with another, equally many of
    each class where possible, and the same for the same labels. Shown are those that were drawn
    first, again of as many classes as possible.

    Args:
        runs: measured on the same images. All of them together decide what is a success.

    Returns:
        None where no image shares its class with another.
    """
    labels = runs[0].predictions.labels
    rows = _draw(labels)
    if len(rows) == 0:
        return None
    nearest = {
        run.method: nearest_others(run.predictions.embeddings, rows, _NEIGHBORS) for run in runs
    }
    is_right = torch.cat([labels[others] == labels[rows, None] for others in nearest.values()], 1)
    is_success = is_right.double().mean(1) >= 0.5
    successes, failures = (
        _spread(torch.nonzero(kind)[:, 0], labels[rows]).tolist()
        for kind in (is_success, ~is_success)
    )
    num_failures = min(len(failures), max(_MAX_SHOWN // 2, _MAX_SHOWN - len(successes)))

    def query(i: int) -> Query:
        return Query(int(rows[i]), {name: others[i].tolist() for name, others in nearest.items()})

    return Gallery(
        [query(i) for i in successes[: _MAX_SHOWN - num_failures]],
        [query(i) for i in failures[:num_failures]],
        num_searched=len(rows),
        num_failures=len(failures),
    )


def _draw(labels: Tensor) -> Tensor:
    """Rows of images that share their class with another, in random order, shape (at most 200,)."""
    _, classes, sizes = labels.unique(return_inverse=True, return_counts=True)
    rows = torch.nonzero(sizes[classes] > 1)[:, 0]
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return _spread(rows, labels)[:_MAX_SEARCHED]


def _spread(rows: Tensor, labels: Tensor) -> Tensor:
    """Put the first row of each class first, then the second ones, and so on."""
    seen: Counter[int] = Counter()
    turns = []
    for label in labels[rows].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return rows[torch.tensor(turns, dtype=torch.long).argsort(stable=True)]
