"""Mix the images of a training batch and their labels: mixup and CutMix, as torchvision does them.

Sources: Zhang et al., "mixup", arXiv 1710.09412; Yun et al., "CutMix", arXiv 1905.04899.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torchvision.transforms import v2
from transformers import default_data_collator

from clce_hf.data.transforms import Rows, Transform


def check_alphas(mixup_alpha: float, cutmix_alpha: float) -> None:
    """Raise `ValueError`, naming it, for an alpha that is negative or not finite."""
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if not 0.0 <= alpha < math.inf:
            raise ValueError(
                f"{name} must be finite and not negative, got {alpha}; 0 mixes nothing."
            )


class MixingCollator:
    """Collates rows as Trainer does, and mixes those of training.

    Trainer has one collator for training and evaluation, and its worker processes cannot know which
    of the two they serve. So the labels decide: rows with one-hot labels are mixed, rows with class
    ids are not. `with_one_hot_labels` turns class ids into one-hot labels.

    Args:
        mixup_alpha: both parameters of the Beta distribution of the share that an image keeps in
            mixup; 0 for no mixup.
        cutmix_alpha: the same for the share of the area in CutMix. Where neither is 0, one of the
            two is drawn for each batch.

    Raises:
        ValueError: if one is negative or not finite, or both are 0.
    """

    def __init__(self, mixup_alpha: float = 0.0, cutmix_alpha: float = 0.0) -> None:
        check_alphas(mixup_alpha, cutmix_alpha)
        if mixup_alpha == cutmix_alpha == 0:
            raise ValueError("mixup_alpha and cutmix_alpha are 0: there is nothing to mix.")
        kinds = ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha))
        self._mix = v2.RandomChoice([kind(alpha=alpha) for kind, alpha in kinds if alpha > 0])

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the batch: `pixel_values` (n, ...) and `labels`, (n, classes) where mixed."""
        batch = default_data_collator(rows)
        labels = batch.get("labels")
        if labels is None or not labels.is_floating_point():
            return batch
        # torchvision mixes neighbors, which are of one class in batches of groups.
        order = torch.randperm(len(rows))
        batch = {name: values[order] for name, values in batch.items()}
        batch["pixel_values"], batch["labels"] = self._mix(batch["pixel_values"], batch["labels"])
        return batch


def with_one_hot_labels(transform: Transform, num_classes: int) -> Transform:
    """Return the transform with its class ids turned into one-hot labels, float32."""
    return _OneHotRows(transform, num_classes)


@dataclass(frozen=True)
class _OneHotRows:
    transform: Transform
    num_classes: int

    def __call__(self, rows: Rows) -> Rows:
        transformed = self.transform(rows)
        one_hot = F.one_hot(torch.tensor(transformed["labels"]), self.num_classes).float()
        return {**transformed, "labels": list(one_hot)}


def mix_training(
    transform: Transform, num_classes: int, mixup_alpha: float, cutmix_alpha: float
) -> tuple[Transform, MixingCollator | None]:
    """Return the transform of the training data and the collator, None where both alphas are 0."""
    if mixup_alpha == cutmix_alpha == 0:
        return transform, None
    collator = MixingCollator(mixup_alpha, cutmix_alpha)
    return with_one_hot_labels(transform, num_classes), collator
