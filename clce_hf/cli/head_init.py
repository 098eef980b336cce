"""What `--head_init auto` comes to."""

from typing import Literal

from accelerate.utils import parse_flag_from_env
from transformers import PreTrainedModel

from clce_hf.config import CLCEConfig
from clce_hf.models.classification_layer import candidate_layers


def head_init(
    args: CLCEConfig, model: PreTrainedModel, new_weights: set[str]
) -> Literal["class_means"] | None:
    """What the flag says or, of `auto`, class means where one classification layer is new.

    Not where there are two, as in models with a distilled head: which one counts is not known. Nor
    where weights are sharded, which may leave no process with a model to run beforehand.
    """
    wanted: str | None = args.head_init
    if wanted == "auto" and not _is_sharded(args):
        layer = args.classification_layer
        candidates = candidate_layers(model) if layer is None else [layer]
        new = [name for name in candidates if f"{name}.weight" in new_weights]
        return "class_means" if len(new) == 1 else None
    return "class_means" if wanted == "class_means" else None


def _is_sharded(args: CLCEConfig) -> bool:
    by_launcher = (parse_flag_from_env(f"ACCELERATE_USE_{n}") for n in ("FSDP", "DEEPSPEED"))
    return bool(args.fsdp or args.deepspeed) or any(by_launcher)
