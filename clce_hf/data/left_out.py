"""Say what of a folder is left out, once where several processes read it."""

import logging
import os

logger = logging.getLogger(__name__)


def say_left_out(folder: str, what: str) -> None:
    """Log that these images or files are left out: as a warning of the first process."""
    level = logging.WARNING if os.environ.get("RANK", "0") == "0" else logging.DEBUG
    logger.log(level, "Left out of the folder %r: %s.", folder, what)
