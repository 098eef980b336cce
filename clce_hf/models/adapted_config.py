"""The config of a model with a PEFT adapter: the names of its classes are in no other file.

It lies in a folder of its own. Beside the adapter, `config.json` would say that the whole model is
there, and `from_pretrained` would look for its weights instead of loading the base.
"""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import CONFIG_NAME, find_adapter_config_file, has_file

ADAPTED_CONFIG = "adapted_model"
"""The folder, in that of the adapter."""


def save_adapted_config(config: PreTrainedConfig, folder: str | Path) -> None:
    """Save the config of an adapted model into the folder of its adapter."""
    config.save_pretrained(Path(folder, ADAPTED_CONFIG))


def load_adapted_config(
    name: str, *, trust_remote_code: bool = False, **hub: Any
) -> PreTrainedConfig | None:
    """Return the config that was saved with an adapter; None without one, or for a whole model.

    Args:
        name: of a model on the Hub, or a folder with it.
        trust_remote_code: as `from_pretrained` takes it.
        **hub: `cache_dir`, `revision` and `token`, as `from_pretrained` takes them.

    Raises:
        OSError: if the repository or the config cannot be read.
    """
    # The first asks what loading an adapter asks, too, and is answered from the cache then.
    is_adapter = find_adapter_config_file(name, **hub) is not None
    if not is_adapter or not has_file(name, f"{ADAPTED_CONFIG}/{CONFIG_NAME}", **hub):
        return None
    return AutoConfig.from_pretrained(
        name, subfolder=ADAPTED_CONFIG, trust_remote_code=trust_remote_code, **hub
    )
