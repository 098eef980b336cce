"""How a loss fits stock Trainer's gradient accumulation, whatever it knows of the model.

Where the model takes `num_items_in_batch`, Trainer counts the labels of an optimizer step and takes
`compute_loss` to have divided by them; else it divides by the number of micro-batches itself. Both
rules hold for subclasses, too, so the loss of CLCE comes in the form that Trainer expects.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import Trainer

from clce_hf.training.labels import count_labels


def divides_by_accumulation_steps(trainer: Trainer, num_items: Tensor | int | None) -> bool:
    """Whether `Trainer.training_step` divides a loss by the number of micro-batches.

    Args:
        trainer: that takes the step.
        num_items: labels of the step, as `compute_loss` was told; None where it was not.
    """
    if trainer.loss_is_scaled_for_ga is not None:
        return not trainer.loss_is_scaled_for_ga
    is_counted = trainer.model_accepts_loss_kwargs and num_items is not None
    return not is_counted and trainer.compute_loss_func is None


def labels_of_step(trainer: Trainer, batches: Sequence[Any]) -> Tensor | None:
    """Count the labeled images of a step, of all processes if Trainer averages over them.

    Returns:
        A scalar on the device; None where a batch has no labels to be counted.
    """
    counts = [count_labels(batch, trainer.label_names) for batch in batches]
    known = [count for count in counts if count is not None]
    if not known or len(known) < len(counts):
        return None
    total = torch.stack(known).sum().to(trainer.args.device)
    averages = cast(Any, trainer.args).average_tokens_across_devices
    return trainer.accelerator.reduce(total, reduction="sum") if averages else total
