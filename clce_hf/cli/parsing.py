"""Turn flags, and the config file before them, into values."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from transformers import HfArgumentParser

from clce_hf.cli.arguments import ModelArguments, SmallViTArguments, TrainArguments
from clce_hf.cli.data_arguments import DataArguments
from clce_hf.cli.errors import with_flag
from clce_hf.cli.image_arguments import DIGITS
from clce_hf.cli.printing import printing
from clce_hf.errors import ArgumentError
from clce_hf.setting_files import did_you_mean, names_of, read_settings, with_types

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
    model, data, *others = parse_flags(
        argv, f"clce-hf {command}", *model_and_data, TrainArguments, *more
    )
    if uses_small_vit(model, data):
        return parse_flags(argv, f"clce-hf {command}", *model_and_data, SmallViTArguments, *more)
    return [model, data, *others]


def uses_small_vit(model: ModelArguments, data: DataArguments) -> bool:
    """Whether the small ViT is to learn the digits: the one data set that needs no named model."""
    return data.benchmark == DIGITS and not model.is_named


def parse_flags(argv: Sequence[str], program: str, *types: Any) -> list[Any]:
    """Return an instance of each dataclass, filled from the flags and the config file before them.

    Exits with a usage message for an unknown flag or a value out of range.

    Args:
        argv: what follows the program.
        program: its name, for messages.
        *types: dataclasses of the flags.
    """
    parser = HfArgumentParser(
        types,
        prog=program,
        usage=f"{program} [CONFIG.json|CONFIG.yaml] [--flag value ...]; --help lists all",
        allow_abbrev=False,  # a new flag would change what an old abbreviation means
    )
    argv = list(argv)
    if argv and _is_config_file(argv[0]):
        parser.set_defaults(**_read(Path(argv.pop(0)), types, parser))
    try:
        with printing():
            *parsed, unknown_flags = parser.parse_args_into_dataclasses(
                argv, return_remaining_strings=True, look_for_args_file=False
            )
    except ValueError as error:
        parser.error(" ".join(with_flag(error).split()))
    # Whatever else is raised where nothing has happened yet is about the flags, too.
    except (TypeError, OSError, ImportError, AttributeError, KeyError) as error:
        parser.error(f"{type(error).__name__}: {error}")
    if unknown_flags:
        names = [flag.split("=")[0][2:] for flag in unknown_flags if flag.startswith("--")]
        hint = did_you_mean(names, names_of(types))
        if not names and any(map(_is_config_file, unknown_flags)):
            hint = " (one config file is taken, and it comes before the flags)"
        parser.error(f"unrecognized arguments: {' '.join(unknown_flags)}{hint}")
    return parsed


def read_numbers(text: str | None, flag: str, kind: type) -> list[Any]:
    """Return the numbers that a flag lists, separated by commas; none for None.

    Raises:
        ArgumentError: for anything else than numbers of this kind, and for whole ones below 1.
    """
    try:
        numbers = [] if text is None else [kind(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(
            flag, f"got {text}, but it takes numbers separated by commas."
        ) from None
    if kind is int and any(number < 1 for number in numbers):
        raise ArgumentError(flag, f"got {text}, but each must be at least 1.")
    return numbers


def _is_config_file(argument: str) -> bool:
    return argument.lower().endswith((".json", ".yaml", ".yml"))


def _read(file: Path, types: Sequence[Any], parser: HfArgumentParser) -> dict[str, Any]:
    """Return the settings of a config file in the types of their flags."""
    try:
        return with_types(read_settings(file), types)
    except ArgumentError as error:
        parser.error(f"in the config file, {error.argument}: {error}")
    except ValueError as error:
        parser.error(f"the config file {error}")
