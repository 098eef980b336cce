"""The ranges of flags that Transformers does not check, or only after the model is loaded."""

import math
from collections.abc import Callable
from typing import Any

from clce_hf.errors import ArgumentError

Range = tuple[str, Callable[[float], bool]]
"""What a value must be, in words and as a test, which NaN does not pass."""

PAIR: Range = ("must be at least 2", lambda value: value >= 2)
COUNT: Range = ("must be at least 1", lambda value: value >= 1)
NOT_NEGATIVE: Range = ("must be finite and not negative", lambda value: 0 <= value < math.inf)
POSITIVE: Range = ("must be finite and positive", lambda value: 0 < value < math.inf)
SHARE: Range = ("must lie in [0, 1]", lambda value: 0 <= value <= 1)
INNER_SHARE: Range = ("must lie in (0, 1)", lambda value: 0 < value < 1)
DECAY: Range = ("must lie in [0, 1)", lambda value: 0 <= value < 1)
SEED: Range = ("must lie in [0, 2**32)", lambda value: 0 <= value < 2**32)  # of numpy

OF_TRAINING = {
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "eval_accumulation_steps": COUNT,
    "num_train_epochs": (f"{POSITIVE[0]}: --do_train false only evaluates", POSITIVE[1]),
    "max_steps": (
        f"{COUNT[0]}, or -1 for what num_train_epochs says",
        lambda value: value >= 1 or value == -1,
    ),
    "learning_rate": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": DECAY,
    "adam_beta2": DECAY,
    "adam_epsilon": NOT_NEGATIVE,
    "label_smoothing_factor": SHARE,
    "warmup_steps": NOT_NEGATIVE,
    "neftune_noise_alpha": NOT_NEGATIVE,
    "eval_steps": POSITIVE,
    "save_steps": POSITIVE,
    "logging_steps": NOT_NEGATIVE,  # 0 where nothing is logged by steps
    "seed": SEED,
    "data_seed": SEED,
    "dataloader_num_workers": NOT_NEGATIVE,
    "dataloader_prefetch_factor": COUNT,
}
"""By the fields of `TrainingArguments`."""


def check_ranges(values: Any, ranges: dict[str, Range]) -> None:
    """Raise `ArgumentError` for a value out of its range, naming it; None is in every range.

    Args:
        values: whose attributes are checked.
        ranges: by the names of the attributes.
    """
    for name, (words, holds) in ranges.items():
        value = getattr(values, name)
        if value is not None and not holds(value):
            raise ArgumentError(name, f"got {value}, but it {words}.")
