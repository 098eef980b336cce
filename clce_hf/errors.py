"""What a user did wrong, told in one line, and the words that such lines share."""

from collections.abc import Sequence


class UserError(Exception):
    """What was asked for is not available; the message says why and what to do."""


class ArgumentError(ValueError):
    """A value does not fit the data or the model that it is for; the message names it in words.

    Whoever knows the argument by another name, as a command line does, can add that name.

    Attributes:
        argument: its name in the function that was called.
    """

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


def abbreviate(names: Sequence[str], most: int = 10) -> str:
    """Join the first names for a message, and say how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
