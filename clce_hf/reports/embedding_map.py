"""Maps of embeddings: a projection to the plane, and a picture of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from clce_hf.loss.unit_length import to_unit_length
from clce_hf.reports.style import INK, WIDTH, palette, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MAX_NAMED = 20
_MIN_IMAGES = 5


def project(embeddings: Sequence[Tensor]) -> list[np.ndarray] | None:
    """Project embeddings of the same images together, by one t-SNE on their cosine distances.

    Two models put an image into spaces that no coordinate connects, so those of all but the first
    are rotated to where they fit the first one's best. This changes no distance within a model.

    Args:
        embeddings: by one or several models, floating point, each of shape (n, d).

    Returns:
        For each model, places in the unit square, shape (n, 2); None for fewer than five images.
    """
    from scipy.linalg import orthogonal_procrustes
    from sklearn.manifold import TSNE

    dim = max(rows.shape[1] for rows in embeddings)
    points = [F.pad(to_unit_length(rows), (0, dim - rows.shape[1])) for rows in embeddings]
    first, *others = [rows.numpy() for rows in points]
    if len(first) < _MIN_IMAGES:
        return None
    rotated = [rows @ orthogonal_procrustes(rows, first)[0] for rows in others]
    together = np.concatenate([first, *rotated])
    perplexity = min(30.0, (len(together) - 1) / 3)
    projection = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    places = projection.fit_transform(together)
    # One scale for both directions, so that distances can be compared.
    low, high = places.min(0), places.max(0)
    places = 0.5 + 0.92 * (places - (low + high) / 2) / (high - low).max()
    return np.split(places, len(embeddings))


def draw_map(places: np.ndarray, labels: Tensor, class_names: Sequence[str], file: Path) -> None:
    """Draw places in the unit square, which fills the picture, colored and named by class.

    Args:
        places: shape (n, 2).
        labels: integers, shape (n,).
        class_names: by label, or empty where labels stand for themselves; more than 20 are not
            written, and are colored by their order.
        file: PNG to write.
    """
    from matplotlib import colormaps

    classes, class_index = np.unique(labels.numpy(), return_inverse=True)
    is_named = len(classes) <= _MAX_NAMED
    if is_named:
        colors = np.array(palette(len(classes)))[class_index]
    else:
        colors = colormaps["viridis"](class_index / (len(classes) - 1))
    is_second_round = is_named & (class_index >= 10)
    with picture(file, WIDTH, bare=True) as axes:
        for marker, rows in (("o", ~is_second_round), ("^", is_second_round)):
            axes.scatter(*places[rows].T, s=12, c=colors[rows], marker=marker, linewidths=0)
        for i, label in enumerate(classes if is_named else []):
            name = class_names[label] if class_names else str(label)
            _name_class(axes, places[class_index == i], name)
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
    """Draw embeddings, projected by t-SNE on their cosine distances, colored by class.

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
