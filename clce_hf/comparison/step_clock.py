"""How long each training step takes."""

import time
from typing import Any

from transformers import TrainerCallback


class StepClock(TrainerCallback):
    """Seconds from each step's end to the next one's, loading included."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time since the last step."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
