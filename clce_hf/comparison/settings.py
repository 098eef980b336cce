"""The settings that all runs in the folder of a comparison share."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

SETTINGS_FILE = "settings.json"


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into the folder, or check that they are those already there.

    Args:
        folder: of the comparison; made if missing.
        settings: by name; other values than numbers, booleans and None are kept as text.

    Raises:
        ValueError: if the folder holds a comparison with other settings, naming them, or its file
            of them cannot be read.
    """
    settings = {
        name: value if isinstance(value, int | float | bool | None) else str(value)
        for name, value in settings.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS_FILE
    with FileLock(folder / "lock"):
        if not file.exists():
            file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
            return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is not what was written there: {error}.") from error
    changes = [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changes:
        raise ValueError(
            f"{str(folder)!r} holds a comparison with other settings: {'; '.join(changes)}."
        )
