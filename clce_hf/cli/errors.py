"""Errors of the other rooms, with the flag that a user can change or with what was being done."""

import contextlib
import sys
import traceback
from collections.abc import Callable, Iterator

from clce_hf.cli.printing import printing
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

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def with_flag(error: Exception) -> str:
    """Return the message of an error, after the flag of the argument that it blames."""
    if not isinstance(error, ArgumentError):
        return str(error)
    return f"--{FLAGS.get(error.argument, error.argument)}: {error}"


@contextlib.contextmanager
def user_errors(doing: str) -> Iterator[None]:
    """Raise `UserError` for what loading and checking raise, naming the flag to change.

    Where a library raises it, the message says what was being done instead, and so does a line
    before the traceback of any other error.

    Args:
        doing: such as "loading the images".
    """
    with before_traceback(lambda: doing):
        try:
            yield
        except ArgumentError as error:
            raise UserError(with_flag(error)) from error
        except (ValueError, OSError, ImportError) as error:
            # Our own messages are whole sentences, those of libraries often a word and a path.
            where = "" if _is_ours(error) else f"while {doing}: "
            raise UserError(f"{where}{error}") from error


def _is_ours(error: Exception) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("clce_hf.")


@contextlib.contextmanager
def before_traceback(doing: Callable[[], str]) -> Iterator[None]:
    """Where an error or Ctrl-C ends the block, say what was being done; the error goes on.

    Args:
        doing: returns the words for it, when it is known how far it came.
    """
    try:
        yield
    except (UserError, UnreadableImageError):
        raise  # they say it themselves, without a traceback
    except (Exception, KeyboardInterrupt) as error:
        print(f"\nclce-hf: {type(error).__name__} while {doing()}", file=sys.stderr, flush=True)
        raise


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """End the program with one line instead of a traceback where the user can fix it."""
    try:
        yield
    except (UserError, UnreadableImageError) as error:
        # From a worker process, the message comes at the end of the worker's traceback.
        message = str(error).rpartition(f"{UnreadableImageError.__name__}: ")[2]
        sys.exit(f"clce-hf: error: {' '.join(message.splitlines())}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        with printing():
            print()  # which ends the program if it is the output that nobody reads any more
        raise
