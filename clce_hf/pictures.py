"""Pictures of a run, drawn with the `reports` extra: Matplotlib and scikit-learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers.utils import is_matplotlib_available, is_sklearn_available

from clce_hf.contrastive import IGNORE_INDEX

_CURVES = ("loss", "ce_loss", "contrastive_loss", "eval_loss", "eval_contrastive_loss")
_MAX_IN_LEGEND = 20


def can_draw() -> bool:
    """Whether what pictures need is installed: `pip install "clce_hf[reports]"`."""
    return is_matplotlib_available() and is_sklearn_available()


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


def draw_training_curve(log_history: list[dict[str, float]], file: Path) -> bool:
    """Draw the terms of the loss over the steps; return whether there was anything to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in _CURVES:
        points = [(entry["step"], entry[name]) for entry in log_history if name in entry]
        if len(points) > 1:
            axes.plot(
                *zip(*points, strict=True), label=name, marker="." if len(points) < 50 else ""
            )
    if not axes.lines:
        return False
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=100)
    return True


def draw_embedding_map(
    embeddings: Tensor, labels: Tensor, class_names: Sequence[str], file: Path
) -> bool:
    """Draw embeddings, projected by t-SNE on their cosine distances, coloured by class.

    Args:
        embeddings: floating point, shape (n, d).
        labels: integers, shape (n,).
        class_names: by label.
        file: PNG to write.

    Returns:
        Whether there were enough embeddings to draw: five.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from sklearn.manifold import TSNE

    if len(labels) < 5:
        return False
    perplexity = min(30.0, (len(labels) - 1) / 3)
    projection = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0)
    places = projection.fit_transform(embeddings.numpy())
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    classes = np.unique(labels.numpy())
    colours = colormaps["tab20" if len(classes) <= _MAX_IN_LEGEND else "hsv"]
    for i, label in enumerate(classes):
        of_class = places[labels.numpy() == label]
        colour = colours(i if len(classes) <= _MAX_IN_LEGEND else i / len(classes))
        axes.scatter(*of_class.T, s=9, color=colour, label=class_names[label])
    axes.set(xticks=[], yticks=[])
    if len(classes) <= _MAX_IN_LEGEND:
        figure.legend(loc="outside right center", markerscale=2)
    figure.savefig(file, dpi=100)
    return True
