"""Forward a batch a few images at a time, and backpropagate as if forwarded whole (GradCache).

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
arXiv 2101.06983. The first forward pass keeps the outputs and no graph. Once the gradient of the
loss with respect to the outputs is known, each mini-batch is forwarded again, with the same random
numbers, and carries its share of that gradient into the parameters. Activations of one mini-batch
are held at a time.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

Inputs = dict[str, Any]

_TOLERANCE = 1e-2
"""Relative difference of the two forward passes that nondeterministic kernels stay below."""


def split_inputs(inputs: Inputs, num_rows: int, size: int) -> list[Inputs]:
    """Cut the tensors of `num_rows` rows among a model's inputs into mini-batches of `size`.

    Inputs of another length, such as a flag, go to every mini-batch.
    """

    def rows(value: Any, start: int) -> Any:
        is_batched = isinstance(value, Tensor) and value.dim() > 0 and len(value) == num_rows
        return value[start : start + size] if is_batched else value

    starts = range(0, num_rows, size)
    return [{name: rows(value, start) for name, value in inputs.items()} for start in starts]


def forward_in_mini_batches(
    forward: Callable[[Inputs], tuple[Tensor, ...]],
    mini_batches: Sequence[Inputs],
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Tensor, ...]:
    """Return the outputs of all mini-batches, attached to the parameters that made them.

    Args:
        forward: runs a model on one mini-batch of m images and returns tensors of shape (m, ...).
            In the backward pass it is run again.
        mini_batches: inputs of the model, with tensors on one device.
        no_sync: a context in which a backward pass leaves gradients unsynchronized; the last
            mini-batch alone runs outside it.

    Returns:
        The tensors, of shape (n, ...), n images in all.

    Raises:
        RuntimeError: in the backward pass, if the second forward pass differs from the first.
    """
    # Without an input that requires a gradient, autograd would leave the outputs detached.
    attached = torch.empty((), requires_grad=True)
    return _MiniBatches.apply(attached, forward, mini_batches, no_sync)


class _Surroundings:
    """The state of the generators and of autocast on the devices of a batch's tensors."""

    def __init__(self, inputs: Inputs) -> None:
        tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
        self._device_type = tensors[0].device.type
        self._cpu_state = torch.get_rng_state()
        self._devices, self._device_states = get_device_states(*tensors)
        self._autocast_dtype = torch.get_autocast_dtype(self._device_type)
        self._is_autocast = torch.is_autocast_enabled(self._device_type)

    def restore_generators(self) -> None:
        torch.set_rng_state(self._cpu_state)
        set_device_states(self._devices, self._device_states, device_type=self._device_type)

    def forked_generators(self) -> AbstractContextManager[Any]:
        return torch.random.fork_rng(self._devices, device_type=self._device_type)

    def autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self._device_type, self._autocast_dtype, self._is_autocast)


class _MiniBatches(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        attached: Tensor,
        forward: Callable[[Inputs], tuple[Tensor, ...]],
        mini_batches: Sequence[Inputs],
        no_sync: Callable[[], AbstractContextManager[Any]],
    ) -> tuple[Tensor, ...]:
        ctx.forward, ctx.mini_batches, ctx.no_sync = forward, mini_batches, no_sync
        ctx.surroundings, outputs = [], []
        for inputs in mini_batches:
            ctx.surroundings.append(_Surroundings(inputs))
            outputs.append(forward(inputs))
        ctx.first_outputs = outputs[0]
        ctx.sizes = [len(parts[0]) for parts in outputs]
        return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        shares = zip(*(gradient.split(ctx.sizes) for gradient in grad_outputs), strict=True)
        steps = list(zip(ctx.mini_batches, ctx.surroundings, shares, strict=True))
        with ctx.surroundings[0].forked_generators():
            for index, (inputs, surroundings, share) in enumerate(steps):
                surroundings.restore_generators()
                is_last = index == len(steps) - 1
                with nullcontext() if is_last else ctx.no_sync():
                    with torch.enable_grad(), surroundings.autocast():
                        outputs = ctx.forward(inputs)
                    if index == 0:
                        _check_same(outputs, ctx.first_outputs)
                    torch.autograd.backward(outputs, share)
        return None, None, None, None


def _check_same(outputs: tuple[Tensor, ...], first: tuple[Tensor, ...]) -> None:
    """Raise unless the second forward pass repeated the first, or gradients would be wrong."""
    is_same = torch.ones((), dtype=torch.bool, device=first[0].device)
    for again, before in zip(outputs, first, strict=True):
        again, before = again.detach().float(), before.float()
        is_same &= ~((again - before).norm() > _TOLERANCE * before.norm())
    if not is_same:  # once for all outputs, since it waits for the device
        raise RuntimeError(
            "With cached_mini_batch_size the second forward pass of a mini-batch differed from the "
            "first: the model draws random numbers from other generators than torch's, or changes "
            "itself in the forward pass. Leave out cached_mini_batch_size."
        )
