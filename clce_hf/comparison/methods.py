"""The methods that are compared: those with a name, those of a file, and grids of values."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from clce_hf.config import CLCEConfig
from clce_hf.errors import ArgumentError
from clce_hf.setting_files import read_settings, with_types


@dataclass(frozen=True)
class Method:
    """A way to train, by the fields of its arguments in which it differs from the others."""

    name: str
    settings: Mapping[str, Any]


METHODS = {
    "ce": Method("CE", {"contrastive_weight": 0.0}),
    "supcon": Method("CE + SupCon", {"variant": "out", "beta": 0.0}),
    "clce": Method("CLCE", {}),
    "clce-paper": Method(
        "CLCE, the paper's values",
        {
            "contrastive_weight": 0.9,
            "temperature": 0.5,
            "beta": 1.0,
            "variant": "in",
            "memory_size": 0,
        },
    ),
}
"""Methods by their names on the command line. SupCon is Khosla et al.'s, arXiv 2004.11362."""


def vary(methods: Sequence[Method], **values: Sequence[float]) -> list[Method]:
    """Replace each method that has a contrastive term by one for each combination of values.

    Args:
        methods: to vary; cross-entropy alone stays as it is.
        values: fields of `CLCEConfig`, each with its values; a field without values stays as it is.
    """
    axes = {name: field_values for name, field_values in values.items() if field_values}
    varied = []
    for method in methods:
        if method.settings.get("contrastive_weight") == 0.0 or not axes:
            varied.append(method)
            continue
        for combination in product(*axes.values()):
            settings = dict(zip(axes, combination, strict=True))
            suffix = ", ".join(f"{name} {value:g}" for name, value in settings.items())
            varied.append(Method(f"{method.name}, {suffix}", {**method.settings, **settings}))
    return varied


def read_methods(file: Path, arguments: type[CLCEConfig] = CLCEConfig) -> list[Method]:
    """Read methods from a YAML or JSON file: names, each with fields of the arguments.

    Args:
        file: of the methods.
        arguments: that a run of them has.

    Raises:
        ValueError: if the file cannot be read, holds something else, or a field or value does not
            exist.
    """
    content = read_settings(file)
    if not all(isinstance(fields, dict) for fields in content.values()):
        raise ValueError(f"{file} must map the name of each method to its fields.")
    known = {field.name for field in dataclasses.fields(arguments)}
    methods = []
    for name, fields in content.items():
        if unknown := {str(field) for field in fields} - known:
            raise ValueError(f"{name} has no field {', '.join(sorted(unknown))}.")
        try:
            methods.append(Method(name, with_types(fields, [arguments])))
        except ArgumentError as error:
            raise ValueError(f"{name}, {error.argument}: {error}") from error
    return methods
