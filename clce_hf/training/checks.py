"""Refuse what CLCE cannot train, before training where possible, naming the field and the fix."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import has_length

from clce_hf.data.labels import read_labels
from clce_hf.errors import abbreviate

FROZEN_BACKBONE = (
    "The backbone is frozen: the embeddings carry no gradient, so the contrastive term would train "
    "nothing. Set projection_dim to train a head on them, unfreeze the backbone, or set "
    "contrastive_weight=0."
)


def check_model(model: nn.Module) -> None:
    """Raise `ValueError` unless the model classifies each image into one of several classes."""
    config = getattr(model, "config", None)
    problem_type = getattr(config, "problem_type", None)
    if problem_type not in (None, "single_label_classification"):
        raise ValueError(
            f"The model's problem_type is {problem_type!r}, but CLCE contrasts classes and needs "
            "one class per image: set problem_type='single_label_classification', or use "
            "transformers.Trainer."
        )
    num_labels = getattr(config, "num_labels", 2)
    if num_labels < 2:
        raise ValueError(
            f"The model has num_labels={num_labels}, but CLCE needs at least two classes: load it "
            "with from_pretrained(..., num_labels=...)."
        )


def check_trains_below(model: nn.Module, layer: nn.Module) -> None:
    """Raise `ValueError` if only the classification layer is trained."""
    in_layer = set(layer.parameters())
    if not any(p.requires_grad and p not in in_layer for p in model.parameters()):
        raise ValueError(FROZEN_BACKBONE)


def check_layer_decay(layer_decay: float | None, optimizer: Any) -> None:
    """Raise `ValueError` for `layer_decay` together with a user-supplied optimizer."""
    if layer_decay is not None and optimizer is not None:
        raise ValueError(
            "layer_decay sets the learning rates of the optimizer that Trainer creates: leave "
            "out layer_decay, or leave out `optimizers`."
        )


def check_has_negatives(samples_per_class: int | None, batch_size: int, memory_size: int) -> None:
    """Raise `ValueError` if one group fills the contrasted batch, which then has one class."""
    if samples_per_class is not None and samples_per_class >= batch_size and memory_size == 0:
        raise ValueError(
            f"samples_per_class={samples_per_class} fills the batch of {batch_size} with images of "
            "one class, so there are none of another to contrast them with: raise "
            f"per_device_train_batch_size, to {8 * samples_per_class} for example, lower "
            "samples_per_class, or set memory_size."
        )


def check_parallelism(trainer: Trainer) -> None:
    """Raise `ValueError` for parallelism that does not contrast images across devices."""
    if trainer.args.n_gpu > 1:
        raise ValueError(
            "CLCETrainer does not run under nn.DataParallel, which would contrast nothing across "
            "GPUs: start the script with `accelerate launch`, or set CUDA_VISIBLE_DEVICES to one "
            "GPU."
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if "LOCAL_RANK" in os.environ and launched > trainer.accelerator.num_processes:
        raise ValueError(
            f"The launcher started {launched} processes, but each of them trains alone: on CPUs, "
            "set use_cpu=True (--use_cpu), so that Accelerate joins them; else check that every "
            "process sees a GPU."
        )
    if trainer.get_tp_size() * trainer.get_cp_size() * trainer.get_sp_size() > 1:
        raise ValueError(
            "CLCETrainer gives every process images of its own: set the tensor, context and "
            "sequence parallel sizes of parallelism_config to 1, and shard with FSDP instead."
        )


def check_forwards_in_mini_batches(model: nn.Module, trainer: Trainer) -> None:
    """Raise `ValueError` if mini-batches would not give the gradient of the whole batch."""
    names = [name for name, module in model.named_modules() if _normalizes_over_batch(module)]
    if names:
        raise ValueError(
            f"cached_mini_batch_size does not fit {type(model).__name__}: its batch normalization "
            f"({abbreviate(names, most=1)}) would normalize over each mini-batch instead of the "
            "batch. Leave out cached_mini_batch_size; activation checkpointing saves memory "
            "without changing the result."
        )
    if trainer.is_deepspeed_enabled:
        raise ValueError(
            "cached_mini_batch_size does not run under DeepSpeed, which reduces gradients in every "
            "backward pass: use DistributedDataParallel or FSDP, or leave out "
            "cached_mini_batch_size."
        )
    if trainer.is_fsdp_enabled and not trainer.accelerator.even_batches:
        raise ValueError(
            "cached_mini_batch_size needs batches of one size on all processes under FSDP, which "
            "gathers weights in every forward pass: leave even_batches of accelerator_config at "
            "True."
        )


def _normalizes_over_batch(module: nn.Module) -> bool:
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return isinstance(module, kinds)


def training_labels(
    dataset: Any, samples_per_class: int | None, label_names: Sequence[str]
) -> Tensor | None:
    """Return the labels of the training data, shape (n,), or None where they cannot be read.

    Raises:
        ValueError: if they are of fewer than two classes, or if `samples_per_class` is set and they
            cannot be read.
    """
    labels = read_labels(dataset, label_names) if has_length(dataset) else None
    if labels is not None and len(labels.unique()) < 2:
        raise ValueError(
            "The training data has fewer than two classes: there is nothing to contrast."
        )
    if labels is None and samples_per_class is not None:
        if not has_length(dataset):
            raise ValueError(
                "samples_per_class needs a data set with a length and readable labels, got an "
                f"{type(dataset).__name__}: leave samples_per_class out."
            )
        raise ValueError(
            "samples_per_class found no labels in the training data: looked for a column or "
            f"attribute named 'targets', 'labels', 'label', 'label_ids' or {list(label_names)}. "
            "Name it in label_names, or give the data set a `targets` attribute."
        )
    return labels


def check_not_soft(targets: Tensor) -> None:
    """Raise `ValueError` for class probabilities, which evaluation does not score."""
    if targets.is_floating_point():
        raise ValueError(
            "labels must be one integer class id per image in evaluation, got class probabilities: "
            "have the data collator mix the images of training alone, as "
            "clce_hf.data.MixingCollator does."
        )


def check_finite(loss: Tensor, terms: dict[str, Tensor], step: int) -> None:
    """Raise `FloatingPointError` naming the step and the terms if the loss is not finite."""
    if not torch.isfinite(loss):
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
        raise FloatingPointError(
            f"The loss is not finite at step {step}: {values}. Lower learning_rate or set "
            "max_grad_norm; check the images for NaN."
        )
