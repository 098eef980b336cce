"""Refuse what CLCE cannot train, before training where possible, naming the field and the fix."""

import os
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from clce_hf.errors import abbreviate
from clce_hf.training.label_range import check_in_range


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
        raise ValueError(
            "The backbone is frozen: the embeddings carry no gradient, so the contrastive term "
            "would train nothing. Unfreeze the backbone or its last block, set projection_dim to "
            "train a head on them, or set contrastive_weight=0."
        )


def check_carry_gradient(embeddings: Tensor, model: nn.Module, layer: nn.Module) -> None:
    """Raise `ValueError` if embeddings of a step carry no gradient, with the cause."""
    if embeddings.requires_grad:
        return
    check_trains_below(model, layer)
    raise ValueError(
        "The embeddings carry no gradient, though layers below the classification layer are to be "
        "trained: reentrant activation checkpointing cuts it off where its inputs need none, so "
        "set use_reentrant=False in activation_checkpointing_kwargs (gradient_checkpointing_kwargs)"
        " or call model.enable_input_require_grads(); else take torch.no_grad() or detach() out "
        "of the model's forward."
    )


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


def check_not_soft(targets: Tensor) -> None:
    """Raise `ValueError` for class probabilities, which evaluation does not score."""
    if targets.is_floating_point():
        raise ValueError(
            "labels must be one integer class id per image in evaluation, got class probabilities: "
            "have the data collator mix the images of training alone, as "
            "clce_hf.data.MixingCollator does."
        )


def check_step(
    loss: Tensor,
    terms: dict[str, Tensor],
    step: int,
    labels: Tensor,
    targets: Tensor,
    num_labels: int,
) -> None:
    """Check the loss of a step and the labels that it is of, and wait for the device only once.

    Args:
        loss: scalar.
        terms: of the loss, scalars by name.
        step: of the optimizer.
        labels: as they came, see `check_in_range`.
        targets: that the loss is of: the labels, or what `ignore_outside_range` makes of them.
        num_labels: of the model.

    Raises:
        ValueError: for a class id that the model does not have.
        FloatingPointError: naming the step and the terms, if the loss is not finite.
    """
    is_right = torch.isfinite(loss)
    if labels is not targets:
        is_right = is_right & (labels == targets).all()
    if is_right:
        return
    if labels is not targets:
        check_in_range(labels, num_labels)
    values = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
    raise FloatingPointError(
        f"The loss is not finite at step {step}: {values}. Lower learning_rate or set "
        "max_grad_norm; check the images for NaN."
    )
