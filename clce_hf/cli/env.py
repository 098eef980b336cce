"""`clce-hf env`: what a bug report needs to know of a machine, and nothing of whose it is.

Names of packages, devices and settings of a fixed list are printed; paths, tokens, addresses and
the name of the host are not.
"""

import argparse
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.commands.config import default_config_file, load_config_from_file

from clce_hf.cli.printing import printing

PACKAGES = (
    *("clce_hf", "transformers", "torch", "torchvision", "accelerate", "datasets", "evaluate"),
    *("huggingface_hub", "safetensors", "numpy", "pillow", "scipy", "scikit-learn", "matplotlib"),
    *("timm", "peft", "deepspeed", "onnx"),
)
SETTINGS = (
    *("distributed_type", "num_processes", "num_machines", "mixed_precision", "use_cpu"),
    *("dynamo_config", "fsdp_config", "deepspeed_config"),
)
"""Of Accelerate's config file."""

NESTED_SETTINGS = (
    *("dynamo_backend", "fsdp_version", "fsdp_sharding_strategy", "fsdp_reshard_after_forward"),
    *("fsdp_cpu_ram_efficient_loading", "fsdp_activation_checkpointing", "fsdp_offload_params"),
    *("zero_stage", "gradient_accumulation_steps", "offload_optimizer_device"),
)
VARIABLES = (
    *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU", "ACCELERATE_USE_FSDP"),
    *("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DYNAMO_BACKEND", "OMP_NUM_THREADS"),
    *("HF_HUB_OFFLINE", "PYTORCH_ENABLE_MPS_FALLBACK"),
)


def env(argv: Sequence[str]) -> None:
    """Print versions, the device and the settings that matter, as a list for a bug report."""
    description = "Print what a bug report needs: versions, device, settings; no path and no token."
    parser = argparse.ArgumentParser("clce-hf env", description=description)
    with printing():
        parser.parse_args(argv)
        if PartialState().is_main_process:
            for name, value in _facts():
                print(f"- {name}: {value}")


def _facts() -> Iterator[tuple[str, Any]]:
    for package in PACKAGES:
        yield package, _version(package)
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "platform", f"{platform.system()} {platform.release()}, {platform.machine()}"
    yield "device", _device()
    state = PartialState()
    yield "processes", f"{state.num_processes} ({state.distributed_type.value})"
    yield "mixed precision", os.environ.get("ACCELERATE_MIXED_PRECISION", "as the flags say")
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]
    if not Path(default_config_file).is_file():
        yield "Accelerate's config file", "none"
        return
    config = load_config_from_file(None).to_dict()
    for name, value in _chosen(config, SETTINGS):
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {kept}" for key, kept in _chosen(value, NESTED_SETTINGS))
        yield f"Accelerate's config file, {name}", value


def _version(package: str) -> str:
    if package == "torch":
        return torch.__version__  # with the build, +cpu or +cu130
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return f"CPU, {torch.get_num_threads()} threads"
    kind, count = accelerator.type, torch.accelerator.device_count()
    if kind != "cuda":
        return f"{count} x {kind}"
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    return f"{count} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB, {runtime}"


def _chosen(settings: Mapping[str, Any], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Return the settings of these names that are set, in their order."""
    for name in names:
        if settings.get(name) not in (None, {}):
            yield name, settings[name]
