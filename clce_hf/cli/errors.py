"""Errors of the other rooms, with the flag that a user can change."""

import contextlib
import sys
from collections.abc import Iterator

from clce_hf.data.transforms import UnreadableImageError
from clce_hf.errors import ArgumentError, UserError

FLAGS = {
    "folder": "benchmark_dir",
    "held_out_share": "train_val_split",
    "image_column": "image_column_name",
    "label_column": "label_column_name",
    "processor_name": "image_processor_name",
}
"""Flags by the argument that they set, where the two have different names."""


def with_flag(error: Exception) -> str:
    """Return the message of an error, after the flag of the argument that it blames."""
    if not isinstance(error, ArgumentError):
        return str(error)
    return f"--{FLAGS.get(error.argument, error.argument)}: {error}"


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Raise `UserError` for what loading and checking raise, naming the flag to change."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise UserError(with_flag(error)) from error


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """End the program with one line instead of a traceback where the user can fix it."""
    try:
        yield
    except (UserError, UnreadableImageError) as error:
        sys.exit(f"clce-hf: error: {error}")
