"""Plain training arguments in the place of a `CLCEConfig`."""

from typing import cast

from transformers import TrainingArguments

from clce_hf.config import CLCEConfig


def add_defaults(args: TrainingArguments) -> CLCEConfig:
    """Give plain training arguments the fields of `CLCEConfig`, at their defaults, in place.

    In place, so that changes that a script makes to its arguments afterwards still count. What was
    set on them as an attribute of that name is a setting of CLCE.

    Raises:
        ValueError: for a class of arguments that has a field of that name for something else.
    """
    if isinstance(args, CLCEConfig):
        return args
    cls, names = type(args), CLCEConfig.__annotations__
    taken = [name for name in names if name in cls.__dataclass_fields__ or hasattr(cls, name)]
    if taken:
        raise ValueError(
            "CLCETrainer reads its settings from the arguments by name, and "
            f"{cls.__name__} has its own {', '.join(taken)}: rename that, or, where the setting of "
            f"CLCE is meant, derive {cls.__name__} from CLCEConfig."
        )
    for name in names:
        if not hasattr(args, name):
            setattr(args, name, CLCEConfig.__dataclass_fields__[name].default)
    return cast(CLCEConfig, args)
