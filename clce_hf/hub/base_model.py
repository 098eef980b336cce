"""The model that a run started from, by its name on the Hub: a folder is nobody else's business."""

import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


def is_on_hub(name: str) -> bool:
    """Whether a name can be an id on the Hub, and is no folder or file here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def leave_out_folders(data: ModelCardData, *names: Any) -> None:
    """Name the base model by the first name on the Hub, and drop PEFT's tags of a folder.

    Args:
        data: of a card, changed in place.
        names: that go before the one that it has.
    """
    bases = [name for name in (*names, data.base_model) if isinstance(name, str)]
    data.base_model = next(filter(is_on_hub, bases), None)
    tags = data.tags or []
    named = {tag: tag.split(":", maxsplit=2)[-1] for tag in tags if tag.startswith("base_model:")}
    data.tags = [tag for tag in tags if tag not in named or is_on_hub(named[tag])] or None


def clean_card(folder: str | Path) -> None:
    """Leave folders out of the card that PEFT saves beside an adapter; the Hub would refuse it."""
    file = Path(folder, "README.md")
    if file.is_file():
        card = ModelCard.load(file)
        leave_out_folders(card.data)
        card.save(file)


def bases_of_adapters(model: Any) -> dict[str, str]:
    """Return what `adapter_config.json` names as the base of each PEFT adapter of a model."""
    adapters = getattr(model, "peft_config", None) or {}
    bases = {name: adapter.base_model_name_or_path for name, adapter in adapters.items()}
    return {name: base for name, base in bases.items() if base}


def warn_of_folders(model: Any) -> None:
    """Warn of adapters that name a folder as their base, in a file that is about to be pushed."""
    for name, base in bases_of_adapters(model).items():
        if not is_on_hub(base):
            warnings.warn(
                "adapter_config.json, which is pushed, names a base model that is not on the Hub, "
                f"{base!r}: nobody else can load the adapter, and all can read this. Set "
                f"trainer.model.peft_config[{name!r}].base_model_name_or_path to its name there.",
                stacklevel=3,
            )
