"""Flags that say what to compare."""

from dataclasses import dataclass, field

from clce_hf.comparison.methods import METHODS
from clce_hf.comparison.ranking import RANKINGS
from clce_hf.errors import ArgumentError


@dataclass
class CompareArguments:
    """What to compare. Lists are separated by commas."""

    methods: str = field(
        default="ce,supcon,clce",
        metadata={"help": f"Any of {', '.join(METHODS)}."},
    )
    settings: str | None = field(
        default=None,
        metadata={"help": "YAML or JSON file of more methods: a name, and fields with values."},
    )
    num_seeds: int = field(
        default=5, metadata={"help": "Runs of each method, at seeds from --seed on."}
    )
    shots: str | None = field(
        default=None, metadata={"help": "Numbers of training images of each class; default all."}
    )
    batch_sizes: str | None = field(
        default=None, metadata={"help": "Values of --per_device_train_batch_size."}
    )
    contrastive_weights: str | None = field(
        default=None, metadata={"help": "Values of lambda for each method with a contrastive term."}
    )
    temperatures: str | None = field(
        default=None, metadata={"help": "Values of tau for each method with a contrastive term."}
    )
    rank_by: str = field(
        default="accuracy",
        metadata={
            "help": "Metric by which methods are ranked and compared with cross-entropy, such as "
            "balanced_accuracy."
        },
    )

    def __post_init__(self) -> None:
        if self.rank_by not in RANKINGS:
            raise ArgumentError(
                "rank_by", f"got {self.rank_by}, but there are {', '.join(RANKINGS)}."
            )
