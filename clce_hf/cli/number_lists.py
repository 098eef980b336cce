"""Lists of numbers on the command line, separated by commas."""

from typing import Any


def read_numbers(text: str | None, flag: str, kind: type) -> list[Any]:
    """Return the numbers of a flag; none for None.

    Raises:
        ValueError: for anything else than numbers of this kind, naming the flag.
    """
    try:
        return [] if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{flag} {text}: numbers, separated by commas, are needed.") from None
