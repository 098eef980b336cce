"""What a user did wrong, told in one line, and the words that such lines share."""

from collections.abc import Sequence


class UserError(Exception):
    """What was asked for cannot be had; the message says why and what to do."""


def abbreviate(names: Sequence[str]) -> str:
    """Join the first ten names for a message, and say how many more there are."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more
