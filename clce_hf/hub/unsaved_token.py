"""A Hub token that works as one and is not pickled."""

from typing import Any


class UnsavedToken(str):
    """A token in training arguments, which Trainer pickles beside the weights and pushes.

    Unpickled, it is None.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(None), ()

    def __deepcopy__(self, memo: Any) -> "UnsavedToken":
        return self
