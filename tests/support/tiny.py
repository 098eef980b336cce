"""Small models, images and arguments shared by the tests."""

from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    PreTrainedModel,
    TrainerCallback,
    ViTConfig,
    ViTForImageClassification,
)

from clce_hf import CLCEConfig

NUM_CLASSES = 4
PAPER: dict[str, Any] = {"temperature": 0.5, "beta": 1.0, "variant": "in", "memory_size": 0}
"""The paper's values, which the functions of the loss have by default."""
CLASSES = ["ant", "bee", "cat", "dog"]
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 16,
    "patch_size": 8,
    "num_labels": NUM_CLASSES,
    "initializer_range": 0.1,
}


def vit(seed: int = 0, **config: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**{**_SIZES, **config}))


def beit(seed: int = 0, **config: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {**_SIZES, "drop_path_rate": 0.0, **config}
    return BeitForImageClassification(BeitConfig(**sizes))


class Images(Dataset):
    """Noise with a class-dependent mean; labels are readable as `targets`."""

    def __init__(self, n: int = 32, seed: int = 0, num_classes: int = NUM_CLASSES) -> None:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(n) % num_classes
        self.targets = labels[torch.randperm(n, generator=generator)].tolist()
        means = torch.tensor(self.targets)[:, None, None, None] / num_classes
        self.pixel_values = torch.randn(n, 3, 16, 16, generator=generator) + means

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.pixel_values[index], "labels": self.targets[index]}


class SoftImages(Images):
    """The same with class probabilities that stay with their image, as if each had been mixed."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = super().__getitem__(index)
        labels = torch.tensor([row["labels"], self.targets[index - 1]])
        share = torch.tensor([[1.0, 0.7, 0.4][index % 3]])
        mixed = torch.cat([share, 1 - share]) @ torch.eye(NUM_CLASSES)[labels]
        return {**row, "labels": mixed}


class StopAt(TrainerCallback):
    """Ends the run at a step, as a killed process would, its schedule unchanged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= self.step


def config(folder: Any, cls: type = CLCEConfig, **fields: Any) -> Any:
    return cls(
        str(folder),
        **{
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "max_steps": 3,
            "logging_steps": 1,
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            **fields,
        },
    )


class GradientRecorder(TrainerCallback):
    """Keeps the gradients that each optimizer step sees."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.steps.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )


def logged(trainer: Any, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def largest_relative_difference(
    ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]
) -> float:
    assert ours.keys() == theirs.keys()
    scale = max(value.abs().max() for value in theirs.values())
    return float(max((ours[n] - theirs[n]).abs().max() for n in theirs) / scale)
