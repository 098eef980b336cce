"""Check that settings have the types of the fields that they are for."""

from types import NoneType
from typing import Any, get_args


def check_types(settings: Any, cls: Any) -> None:
    """Raise `ValueError` for a setting of another type than its field, naming it.

    An int will do for a float, but a bool is no int. NumPy's numbers are refused, unless they are
    Python's as well, as `numpy.float64` is: loggers could not write them as JSON.

    Args:
        settings: an object that has them as attributes.
        cls: a dataclass whose own fields, not those of its bases, are looked at. Each has a help.
            Of a field that has choices, the value is for another check.
    """
    # Not the types of the dataclass's fields, which HfArgumentParser takes the None out of.
    for name, hint in cls.__annotations__.items():
        types: tuple[Any, ...] = get_args(hint) or (hint,)
        if not all(isinstance(each, type) for each in types):
            continue
        value = getattr(settings, name)
        accepted = (*types, int) if float in types else types
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in types):
            names = " or ".join("None" if t is NoneType else t.__name__ for t in types)
            meaning = cls.__dataclass_fields__[name].metadata["help"]
            raise ValueError(f"{name} must be of type {names}, got {value!r}: {meaning}")
