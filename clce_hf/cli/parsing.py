"""Turn flags, and the config file before them, into values."""

import dataclasses
import difflib
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from transformers import HfArgumentParser

from clce_hf.cli.arguments import ModelArguments, SmallViTArguments, TrainArguments
from clce_hf.cli.data_arguments import DIGITS, DataArguments
from clce_hf.cli.errors import with_flag

Arguments = tuple[ModelArguments, DataArguments, TrainArguments]
"""What `train` is asked to do."""


def parse(argv: Sequence[str]) -> Arguments:
    """Read the flags of `train`, and the config file before them.

    Exits with a usage message for an unknown flag or a value out of range.
    """
    return cast(Arguments, tuple(parse_training(argv, "train")))


def parse_training(argv: Sequence[str], command: str, *more: Any) -> list[Any]:
    """Read flags of the model, the data and the training, with defaults for the small ViT.

    Args:
        argv: what follows the command.
        command: its name, for messages.
        *more: dataclasses of further flags.
    """
    model_and_data = (ModelArguments, DataArguments)
    model, data, *others = parse_flags(argv, command, *model_and_data, TrainArguments, *more)
    if uses_small_vit(model, data):
        return parse_flags(argv, command, *model_and_data, SmallViTArguments, *more)
    return [model, data, *others]


def uses_small_vit(model: ModelArguments, data: DataArguments) -> bool:
    """Whether the small ViT is to learn the digits: the one data set that needs no named model."""
    return data.benchmark == DIGITS and not model.is_named


def parse_flags(argv: Sequence[str], command: str, *types: Any) -> list[Any]:
    """Return an instance of each dataclass, filled from the flags and the config file before them.

    Exits with a usage message for an unknown flag or a value out of range.
    """
    parser = HfArgumentParser(
        types,
        prog=f"clce-hf {command}",
        usage=f"clce-hf {command} [CONFIG.json|CONFIG.yaml] [--flag value ...]; --help lists all",
        allow_abbrev=False,  # a new flag would change what an old abbreviation means
    )
    known = {field.name for kind in types for field in dataclasses.fields(kind) if field.init}
    argv = list(argv)
    if argv and argv[0].endswith((".json", ".yaml", ".yml")):
        settings = _read(Path(argv.pop(0)))
        if unknown := sorted(settings.keys() - known):
            names = ", ".join(unknown)
            hint = _did_you_mean(unknown, known)
            parser.error(f"unknown settings in the config file: {names}{hint}")
        parser.set_defaults(**settings)
    try:
        *parsed, unknown_flags = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        parser.error(with_flag(error))
    if unknown_flags:
        names = [flag.split("=")[0][2:] for flag in unknown_flags if flag.startswith("--")]
        hint = _did_you_mean(names, known)
        parser.error(f"unrecognized arguments: {' '.join(unknown_flags)}{hint}")
    return parsed


def read_numbers(text: str | None, flag: str, kind: type) -> list[Any]:
    """Return the numbers that a flag lists, separated by commas; none for None.

    Raises:
        ValueError: for anything else than numbers of this kind, naming the flag.
    """
    try:
        return [] if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{flag} {text}: expected numbers separated by commas.") from None


def _did_you_mean(unknown: Sequence[str], known: Collection[str]) -> str:
    close = [difflib.get_close_matches(name, known, n=1) for name in unknown]
    flags = [f"--{name}" for names in close for name in names]
    return f" (did you mean {', '.join(flags)}?)" if flags else ""


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON or YAML file of settings; JSON is YAML."""
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f"clce-hf: error: the config file cannot be read: {error}")
    if not isinstance(settings, dict):
        sys.exit(f"clce-hf: error: {file.name} is not a mapping of settings")
    return settings
