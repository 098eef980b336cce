"""Runs and images that stand for trained models and a data set."""

import torch
from PIL import Image

from clce_hf.evaluation.record import Predictions, Run

NAMES = ["ant", "bee & <b>wasp</b>", "</script><script>alert(1)</script>", "$x^{$"]


def run(method="CE", seed=0, shots=None, batch_size=32, accuracy=0.5, n=40, **changes):
    """A model that puts a quarter of the images into the next class; CLCE, an eighth."""
    generator = torch.Generator().manual_seed(seed + sum(method.encode()))
    labels = torch.arange(n) % len(NAMES)
    predicted = (labels + (torch.arange(n) % 16 < (2 if method == "CLCE" else 4))) % len(NAMES)
    noise = torch.randn(n, len(NAMES), generator=generator)
    log = [
        {"step": 10 * i, "loss": 2 / i + seed, "ce_loss": 1 / i, "eval_loss": 1.5 / i}
        for i in (1, 2, 3)
    ]
    tensors = {
        "logits": 5.0 * torch.eye(len(NAMES))[predicted] + noise.clamp(-2, 2),
        "embeddings": torch.eye(len(NAMES), 6)[labels] + torch.randn(n, 6, generator=generator) / 5,
        "labels": labels,
    }
    tensors.update({name: changes.pop(name) for name in tensors if name in changes})
    facts = {"metrics": {"accuracy": accuracy}, "log_history": log, **changes}
    return Run(
        method, Predictions(**tensors), seed=seed, shots=shots, batch_size=batch_size, **facts
    )


def comparison():
    """Two methods, three seeds, two numbers of shots and two batch sizes."""
    return [
        run(method, seed, shots, size, 0.6 + 0.02 * seed + 0.1 * better + 0.01 * (shots == 5))
        for seed in range(3)
        for shots in (2, 5)
        for size in (16, 64)
        for better, method in enumerate(("CE", "CLCE"))
    ]


def color(i):
    """Of the i-th image, far from that of the others."""
    return 60 * (i % 4), 60 * (i // 4 % 4), 60 * (i // 16 % 4)


def image(i):
    return Image.new("RGB", (12, 8), color(i))
