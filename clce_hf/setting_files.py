"""Read settings from a YAML or JSON file, in the types of the fields that they are for."""

import argparse
import dataclasses
import difflib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser

from clce_hf.errors import ArgumentError


def read_settings(file: Path) -> dict[str, Any]:
    """Read a YAML or JSON file of names and values.

    It is UTF-8 whatever the locale, with or without a byte order mark; UTF-16 needs the mark.

    Raises:
        ValueError: if it cannot be read or holds something else, naming it.
    """
    try:
        with file.open("rb") as opened:
            load = json.load if file.suffix.lower() == ".json" else yaml.safe_load
            settings = load(opened)
    # Of JSON and of wrong encodings, ValueError.
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} must map names to values.")
    return {str(name): value for name, value in settings.items()}


def names_of(kinds: Sequence[Any]) -> set[str]:
    """Return the names of the settings that these dataclasses have."""
    return {field.name for kind in kinds for field in dataclasses.fields(kind) if field.init}


def did_you_mean(unknown: Sequence[str], known: Collection[str]) -> str:
    """Return the known flags that are close to unknown names, for the end of a message, or ""."""
    close = [difflib.get_close_matches(name, known, n=1) for name in unknown]
    flags = [f"--{name}" for names in close for name in names]
    return f" (did you mean {', '.join(flags)}?)" if flags else ""


def with_types(settings: Mapping[str, Any], kinds: Sequence[Any]) -> dict[str, Any]:
    """Return the settings in the types of their fields, as flags of these values have them.

    YAML takes 1e-5 for a word, yes for a boolean and a date for a date, and knows no choices.

    Args:
        settings: by the names of fields.
        kinds: the dataclasses that have these fields.

    Raises:
        ArgumentError: for settings that are no fields, or a value that a field cannot have, naming
            the field.
    """
    known = names_of(kinds)
    if unknown := sorted(settings.keys() - known):
        names = ", ".join(unknown)
        hint = did_you_mean(unknown, known)
        raise ArgumentError(names, f"there is no setting {names}{hint}.")
    parser = HfArgumentParser(kinds, exit_on_error=False)
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    return {name: _typed(name, value, hints[name], parser) for name, value in settings.items()}


def _typed(name: str, value: Any, hint: Any, parser: argparse.ArgumentParser) -> Any:
    accepted = {get_origin(part) or part for part in get_args(hint) or (hint,)}
    # On a command line, neither None nor a dict can be written, nor a list in one word. Where a
    # text is expected, true may be another choice, as in fsdp and resume_from_checkpoint.
    if type(value) in accepted or (isinstance(value, bool) and str in accepted):
        return value
    written = str(value).lower() if isinstance(value, bool) else value  # as choices have it
    try:
        return getattr(parser.parse_args([f"--{name}={written}"]), name)
    except argparse.ArgumentError as error:
        raise ArgumentError(name, f"{error.message}.") from error
