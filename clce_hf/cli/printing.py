"""Print for any terminal, and for readers that leave early."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator

OUTPUT_CLOSED = 141
"""Exit status where the reader of the output left, as shells have it."""


def escape_unprintable() -> None:
    """Have characters that the terminal's encoding lacks printed as escapes, as on stderr.

    The encoding may be ASCII or Windows' cp1252, and the names of classes anything.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """End the program without a traceback where the reader of what is printed left (`| head`)."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes again when it ends, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(OUTPUT_CLOSED)
