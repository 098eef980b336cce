"""Load a checkpoint that names its weights as the original release of the model did.

`save_pretrained` writes a model's weights under the names that its first checkpoints had, and
`from_pretrained` translates them back. Trainer does not when it resumes or loads the best model: it
loads the names that happen to match and skips the others, 32 of a ViT's 40 tensors
(transformers 5.23, github.com/huggingface/transformers/issues/43701).
"""

import copy
import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from clce_hf.errors import abbreviate


def load_renamed_weights(model: nn.Module, folder: str | os.PathLike[str]) -> bool:
    """Load the weights into the model if the checkpoint has other names for them.

    Returns:
        False, with nothing done, where the names are the model's own or the checkpoint is not of a
        `PreTrainedModel` in safetensors.

    Raises:
        ValueError: if the checkpoint does not hold all of the model's weights.
    """
    if not isinstance(model, PreTrainedModel):
        return False
    saved = _saved_names(Path(folder))
    skipped = set(model._keys_to_ignore_on_save or ())
    wanted = {name for name in model.state_dict() if name not in skipped}
    if not saved or wanted <= saved:
        return False
    loaded: Any = type(model).from_pretrained(
        folder, config=copy.deepcopy(model.config), dtype="auto", output_loading_info=True
    )
    translated, report = loaded
    absent = sorted(wanted & set(report["missing_keys"]) | set(report["mismatched_keys"]))
    if absent:
        raise ValueError(
            f"The checkpoint {Path(folder).name} does not hold the weights of this "
            f"{type(model).__name__}: {abbreviate(list(map(str, absent)), most=5)} are missing or "
            "of another shape."
        )
    model.load_state_dict({**model.state_dict(), **translated.state_dict()})
    return True


def _saved_names(folder: Path) -> set[str]:
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    if index.exists():
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    file = folder / SAFE_WEIGHTS_NAME
    if not file.exists():
        return set()
    with safe_open(file, framework="pt") as weights:
        return set(weights.keys())
