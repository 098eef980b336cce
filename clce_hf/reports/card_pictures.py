"""The pictures of a model card."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from clce_hf.reports.curves import draw_training_curve
from clce_hf.reports.embedding_map import draw_embedding_map
from clce_hf.reports.extra import check_can_draw


def draw_card_pictures(
    log_history: list[dict[str, Any]],
    sample: tuple[Tensor, Tensor],
    class_names: Sequence[str],
    folder: Path,
) -> dict[str, Path]:
    """Draw the training curve and a map of some embeddings, where there is data for them.

    Args:
        log_history: of `TrainerState`.
        sample: embeddings, shape (n, d), and their labels, shape (n,).
        class_names: by label; empty where labels stand for themselves.
        folder: to draw into.

    Returns:
        The files by their captions.

    Raises:
        ModuleNotFoundError: without the `reports` extra.
    """
    check_can_draw()
    pictures = {}
    curve, embedding_map = folder / "training_curve.png", folder / "embeddings.png"
    if draw_training_curve(log_history, curve):
        pictures["The terms of the loss during training"] = curve
    if draw_embedding_map(*sample, class_names, embedding_map):
        pictures["Embeddings of images that were evaluated on, t-SNE"] = embedding_map
    return pictures
