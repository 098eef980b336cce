"""Count what makes the host wait for the device, also where the device is a CPU."""

import sys
from collections import Counter

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
"""Operators whose result decides what the host does next."""


class CopiesToHost(TorchFunctionMode):
    """Counts what copies a tensor to the host, which runs no operator on a CPU."""

    def __init__(self, by_function):
        super().__init__()
        self.by_function = by_function

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("tolist", "numpy", "cpu", "__array__"):
            self.by_function[_caller()] += 1
        return func(*args, **(kwargs or {}))


class WaitsForDevice(TorchDispatchMode):
    """Counts what the host needs the result of, by the function of ours that asks for it."""

    def __init__(self):
        super().__init__()
        self.by_function = Counter()
        self.copies = CopiesToHost(self.by_function)

    def __enter__(self):
        self.copies.__enter__()
        return super().__enter__()

    def __exit__(self, exc_type, exc_val, exc_tb):
        super().__exit__(exc_type, exc_val, exc_tb)
        self.copies.__exit__(exc_type, exc_val, exc_tb)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.removeprefix("aten::")
        by_mask = "index" in name and any(
            getattr(index, "dtype", None) in (torch.bool, torch.uint8)
            for indices in args
            if isinstance(indices, list | tuple)
            for index in indices
        )
        if name in WAITING or by_mask:
            self.by_function[_caller()] += 1
        return func(*args, **(kwargs or {}))


def _caller():
    """The innermost function of the package on the stack."""
    frame = sys._getframe()
    while frame is not None:
        if "/clce_hf/" in frame.f_code.co_filename:
            return frame.f_code.co_name
        frame = frame.f_back
    return "elsewhere"
