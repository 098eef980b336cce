"""The command line: `train`, `evaluate`, `embed`, `compare`, `demo` and `env`.

Flags become values here and nowhere else, and errors of the other rooms get the name of a flag
here. What a command does lives in the other rooms.
"""

from clce_hf.cli.arguments import ModelArguments, TrainArguments
from clce_hf.cli.data_arguments import DataArguments, LabeledImagesArguments

__all__ = ["DataArguments", "LabeledImagesArguments", "ModelArguments", "TrainArguments"]
