"""A step of training does not wait for the device, but where it is said here."""

from collections import Counter

import pytest
import torch
from support.tiny import Images, SoftImages, config, vit
from support.waiting import WaitsForDevice

from clce_hf import CLCETrainer

FINITE_LOSS = {"check_step": 1}
"""The one check of each step, that its loss is finite and its labels are in range."""


class CountsWaits(CLCETrainer):
    """Counts the last two steps of twelve: a warning about positives reads earlier ones."""

    def __init__(self, *args, **named):
        super().__init__(*args, **named)
        self.waits = WaitsForDevice()
        self.counted_steps = 0

    def training_step(self, *args, **named):
        if self.state.global_step < 10:
            return super().training_step(*args, **named)
        self.counted_steps += 1
        with self.waits:
            return super().training_step(*args, **named)


@pytest.mark.parametrize(
    "images, settings, expected",
    [
        (Images, {"contrastive_weight": 0.0}, FINITE_LOSS),
        (Images, {"memory_size": 0}, FINITE_LOSS),
        (Images, {"memory_size": 0, "variant": "in", "beta": 1.0}, FINITE_LOSS),
        (Images, {}, FINITE_LOSS),
        (Images, {"memory_size": 20}, FINITE_LOSS),
        (Images, {"samples_per_class": 2}, FINITE_LOSS),
        (Images, {"projection_dim": 8}, FINITE_LOSS),
        (Images, {"label_smoothing_factor": 0.1}, FINITE_LOSS),
        (SoftImages, {}, {**FINITE_LOSS, "class_targets": 1}),  # that they are probabilities
        # That the second forward pass is like the first.
        (Images, {"cached_mini_batch_size": 2}, {**FINITE_LOSS, "_check_same": 1}),
    ],
)
def test_a_step_waits_for_the_device_only_to_check(tmp_path, images, settings, expected):
    args = config(tmp_path, max_steps=12, **settings)
    trainer = CountsWaits(vit(), args, train_dataset=images())
    trainer.train()
    assert trainer.counted_steps == 2
    assert trainer.waits.by_function == Counter({k: 2 * n for k, n in expected.items()})


def test_what_waits_is_noticed():
    labels = torch.tensor([0, 1, 1])
    for waiting in (
        lambda: labels.unique(),
        lambda: labels[labels > 0],
        lambda: labels.sum().item(),
        lambda: labels.max().tolist(),
        lambda: labels.nonzero(),
        lambda: labels.cpu(),
        lambda: labels.numpy(),
        lambda: bool(labels.any()),
    ):
        with WaitsForDevice() as waits:
            waiting()
        assert waits.by_function
