"""Maps of embeddings: a projection to the plane, and a picture of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clce_hf.loss.contrastive import to_unit_length
from clce_hf.reports.style import INK, WIDTH, palette, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NAMED = 20
_LEAST = 5


def project(embeddings: Sequence[Tensor]) -> list[np.ndarray] | None:
    """Project embeddings of the same images together, by one t-SNE on their cosine distances.

    Two models put an image into spaces that no coordinate connects, so those of all but the first
    are rotated to where they fit the first one's best. This changes no distance within a model.

    Args:
        embeddings: by one or several models, floating point, each of shape (n, d).

    Returns:
        For each model, places in the unit square, shape (n, 2); None for fewer than five images.
    """
    from sklearn.manifold import TSNE

    dim = max(rows.shape[1] for rows in embeddings)
    first, *others = [F.pad(to_unit_length(rows), (0, dim - rows.shape[1])) for rows in embeddings]
    if len(first) < _LEAST:
        return None
    together = torch.cat([first, *(rows @ _rotation(rows, first) for rows in others)]).numpy()
    perplexity = min(30.0, (len(together) - 1) / 3)
    projection = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    places = projection.fit_transform(together)
    # One scale for both directions, so that distances can be compared.
    low, high = places.min(0), places.max(0)
    places = 0.5 + 0.92 * (places - (low + high) / 2) / (high - low).max()
    return np.split(places, len(embeddings))


def _rotation(rows: Tensor, onto: Tensor) -> Tensor:
    """The orthogonal matrix that brings rows closest to others: Schoenemann 1966."""
    left, _, right = torch.linalg.svd(rows.T @ onto)
    return left @ right


def draw_map(places: np.ndarray, labels: Tensor, class_names: Sequence[str], file: Path) -> None:
    """Draw places in the unit square, which fills the picture, coloured and named by class.

    Args:
        places: shape (n, 2).
        labels: integers, shape (n,).
        class_names: by label, or empty where labels stand for themselves; more than 20 are not
            written, and coloured in their order.
        file: PNG to write.
    """
    from matplotlib import colormaps

    classes, which = np.unique(labels.numpy(), return_inverse=True)
    is_named = len(classes) <= _MAX_NAMED
    if is_named:
        colours = np.array(palette(len(classes)))[which]
    else:
        colours = colormaps["viridis"](which / (len(classes) - 1))
    is_second_round = is_named & (which >= 10)
    with picture(file, WIDTH, bare=True) as axes:
        for marker, chosen in (("o", ~is_second_round), ("^", is_second_round)):
            axes.scatter(*places[chosen].T, s=12, c=colours[chosen], marker=marker, linewidths=0)
        for i, label in enumerate(classes if is_named else []):
            name = class_names[label] if class_names else str(label)
            _name_class(axes, places[which == i], name)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])


def _name_class(axes: "Axes", places: np.ndarray, name: str) -> None:
    """Write a name above the half of its class that lies closest together."""
    from matplotlib.patheffects import withStroke

    middle = np.median(places, axis=0)
    distances = np.linalg.norm(places - middle, axis=1)
    x, y = middle[0], places[distances <= np.median(distances), 1].max()
    axes.annotate(
        *(name, (x, y)),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if x < 0.2 else "right" if x > 0.8 else "center",
        size=9,
        weight="bold",
        color=INK,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def draw_embedding_map(
    embeddings: Tensor, labels: Tensor, class_names: Sequence[str], file: Path
) -> bool:
    """Draw embeddings, projected by t-SNE on their cosine distances, coloured by class.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,).
        class_names: by label, or empty where labels stand for themselves.
        file: PNG to write.

    Returns:
        Whether there were enough embeddings to draw: five.
    """
    projected = project([embeddings])
    if projected is None:
        return False
    draw_map(projected[0], labels, class_names, file)
    return True
