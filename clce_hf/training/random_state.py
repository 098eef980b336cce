"""The generators that transforms of images draw from: those of Python, numpy and torch's CPU."""

import random
from typing import Any

import numpy as np
import torch

RandomState = dict[str, Any]
"""Of the kinds that Trainer itself puts into a checkpoint."""


def random_state() -> RandomState:
    """Return the state of the generators, to be given to `set_random_state`."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: RandomState) -> None:
    """Put the generators where they were when `random_state` returned `state`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
