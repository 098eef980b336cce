"""The settings that all runs in the folder of a comparison share."""

import dataclasses
import json
from collections.abc import Collection, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from filelock import FileLock

SETTINGS_FILE = "settings.json"

BEFORE_THEY_EXISTED = {
    "memory_size": 0,
    "head_init": "none",
    "logit_adjustment": 0.0,
    "calibrate": "auto",  # which a comparison never does
}
"""What folders that are older than a setting were run with."""


def keep_settings(folder: Path, parts: Sequence[Any], apart_from: Collection[str] = ()) -> None:
    """Write the settings into the folder, or check that they are those already there.

    A folder that is older than a field is completed with what runs did before there was one.

    Args:
        folder: of the comparison; made if missing.
        parts: dataclasses; other values than numbers, booleans and None are kept as text.
        apart_from: names of fields that are neither kept nor compared.

    Raises:
        ValueError: if the folder holds a comparison with other settings, or one that is not known
            to have had a setting, naming them; or if its file of them cannot be read.
    """
    settings = _values(parts, apart_from)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS_FILE
    with FileLock(folder / "lock"):
        if not file.exists():
            _write(file, settings)
            return
        kept = _read(file)
        later = [name for name in settings if name not in kept]
        if unknown := [name for name in later if name not in BEFORE_THEY_EXISTED]:
            raise ValueError(
                f"{str(folder)!r} holds a comparison of another version, which did not keep "
                f"{', '.join(unknown)}, so its runs may have had other values. Name another "
                "output_dir."
            )
        before = kept | {name: BEFORE_THEY_EXISTED[name] for name in later}
        flags = _as_flags(parts)
        changes = [
            f"{name} was {flags.get(str(before[name]), before[name])}, "
            f"now {flags.get(value, value)}"
            for name, value in settings.items()
            if before[name] != value
        ]
        if changes:
            raise ValueError(
                f"{str(folder)!r} holds a comparison with other settings: {'; '.join(changes)}. "
                "Name another output_dir, or resume with the same settings."
            )
        if later:
            _write(file, before)


def _write(file: Path, settings: dict[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(file)!r} is not what was written there: {error}. Name another output_dir."
        ) from error
    if not isinstance(kept, dict):
        raise ValueError(
            f"{str(file)!r} is not what was written there: it holds no settings by name. Name "
            "another output_dir."
        )
    return kept


def _values(parts: Sequence[Any], apart_from: Collection[str]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, int | float | bool | None) else str(value)
        for part in parts
        for name, value in dataclasses.asdict(part).items()
        if name not in apart_from
    }


def _as_flags(parts: Sequence[Any]) -> dict[str, Any]:
    """The values of enumerations, such as `no`, by the text that is kept, `SaveStrategy.NO`."""
    values = (value for part in parts for value in dataclasses.asdict(part).values())
    kinds = {type(value) for value in values if isinstance(value, Enum)}
    return {str(member): member.value for kind in kinds for member in kind}
