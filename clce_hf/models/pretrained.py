"""Load a model with a head for the classes of the data, or a checkpoint as it was saved."""

from pathlib import Path
from typing import Any, TypedDict, Unpack

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
)
from transformers.image_processing_utils import BaseImageProcessor

from clce_hf.errors import ArgumentError, abbreviate
from clce_hf.models.adapted_config import load_adapted_config
from clce_hf.models.class_names import class_names, label_settings
from clce_hf.models.takes_pixels import check_takes_pixels

_UNREADABLE = (OSError, SafetensorError, StrictDataclassError)
"""What is raised for files that are missing, cut off, or of values that a config cannot have."""


class HubOptions(TypedDict, total=False):
    """What `from_pretrained` takes to find a model on the Hub; all may be left out."""

    cache_dir: str | None
    revision: str
    token: str | None
    trust_remote_code: bool


def load_model(
    name: str,
    names: list[str],
    *,
    config_name: str | None = None,
    processor_name: str | None = None,
    drop_path_rate: float | None = None,
    ignore_mismatched_sizes: bool = False,
    **hub: Unpack[HubOptions],
) -> tuple[PreTrainedModel, BaseImageProcessor, set[str]]:
    """Load a model with a head for these classes, its image processor, and names of new weights.

    New are those that the checkpoint lacks, or has for another number of classes.

    Args:
        name: of the model on the Hub, or a folder with a checkpoint.
        names: of the classes, in the order of the logits.
        config_name: the same for its config, if that is another's.
        processor_name: the same for its image processor.
        drop_path_rate: share of images that skip a residual block in training; None for what the
            config says.
        ignore_mismatched_sizes: whether to replace a head of another number of classes.
        **hub: as `from_pretrained` takes them.

    Raises:
        ValueError: if it cannot be loaded, or has no drop path to set; an `ArgumentError` where an
            argument is to blame.
    """
    config: Any = _load_config(config_name or name, hub, **label_settings(names))
    try:
        _adapt(config, names, drop_path_rate)
        model, loading = AutoModelForImageClassification.from_pretrained(
            name,
            config=config,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            output_loading_info=True,
            **hub,
        )
    except _UNREADABLE as error:
        raise ValueError(_not_loaded(name, error)) from error
    except RuntimeError as error:
        raise ArgumentError(
            "ignore_mismatched_sizes",
            f"The weights of {name!r} do not fit: {error}\nIf only the head is for another number "
            "of classes, ignore mismatched sizes.",
        ) from error
    except TypeError as error:  # of timm, for an argument that an architecture does not know
        if "drop_path_rate" not in str(error):
            raise
        raise _no_drop_path(name) from error
    new = {*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}
    return model, _load_processor(processor_name or name, model, hub), new


def create_model(
    model_type: str,
    processor_name: str,
    names: list[str],
    *,
    drop_path_rate: float | None = None,
    **hub: Unpack[HubOptions],
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Create an untrained model with a head for these classes, and load an image processor.

    Args:
        model_type: as Transformers calls it, such as vit.
        processor_name: of the image processor on the Hub, or a folder with it.
        names: of the classes, in the order of the logits.
        drop_path_rate: as in `load_model`.
        **hub: as `from_pretrained` takes them.

    Raises:
        ValueError: if the processor cannot be loaded, or the model has no drop path to set.
    """
    config: Any = AutoConfig.for_model(model_type, **label_settings(names))
    _adapt(config, names, drop_path_rate)
    model = AutoModelForImageClassification.from_config(config)
    return model, _load_processor(processor_name, model, hub)


def load_checkpoint(
    name: str, **hub: Unpack[HubOptions]
) -> tuple[PreTrainedModel, BaseImageProcessor, set[str]]:
    """Load a model as it was saved, its image processor, and the names of missing weights.

    A PEFT adapter is loaded into its base, with its own head where it has one. It knows the names
    of its classes if `CLCETrainer` saved it.

    Raises:
        ValueError: if it cannot be loaded, or its parts do not fit each other.
    """
    try:
        config = load_adapted_config(name, **hub)
        model, loading = _load_as_saved(name, hub, **({"config": config} if config else {}))
        if config is None and loading["mismatched_keys"] and getattr(model, "peft_config", None):
            # How many classes an adapter tells apart, the shape of its head alone says.
            _, shape, _ = next(iter(loading["mismatched_keys"]))
            model, loading = _load_as_saved(name, hub, num_labels=shape[0])
        processor = AutoImageProcessor.from_pretrained(name, **hub)
    except _UNREADABLE as error:
        raise ValueError(_not_loaded(name, error)) from error
    if others := sorted(key for key, *_ in loading["mismatched_keys"]):
        raise ValueError(
            f"The model {name!r} has weights of other shapes than its config says, "
            f"{abbreviate(others)}: save it with its own config, an adapter after "
            "`merge_and_unload()`."
        )
    check_takes_pixels(model, processor)
    return model, processor, loading["missing_keys"]


def _load_as_saved(name: str, hub: HubOptions, **settings: Any) -> tuple[PreTrainedModel, Any]:
    return AutoModelForImageClassification.from_pretrained(
        name, ignore_mismatched_sizes=True, output_loading_info=True, **settings, **hub
    )


def load_class_names(name: str, **hub: Unpack[HubOptions]) -> list[str]:
    """Return the names of a model's classes in the order of its logits, from its config alone.

    Raises:
        ValueError: if the config cannot be loaded.
    """
    return class_names(_load_config(name, hub))


def _load_config(name: str, hub: HubOptions, **settings: Any) -> Any:
    try:
        return AutoConfig.from_pretrained(name, **settings, **hub)
    except _UNREADABLE as error:
        raise ValueError(_not_loaded(name, error)) from error


def _load_processor(name: str, model: PreTrainedModel, hub: HubOptions) -> BaseImageProcessor:
    """Load an image processor; an `ArgumentError` says that the model does not take its pixels."""
    try:
        processor = AutoImageProcessor.from_pretrained(name, **hub)
        check_takes_pixels(model, processor)
        return processor
    except OSError as error:
        raise ArgumentError(
            "processor_name",
            f"The image processor of {name!r} could not be loaded: {error}\nName that of the model "
            "it came from.",
        ) from error
    except ValueError as error:
        raise ArgumentError("processor_name", str(error)) from error


def _not_loaded(name: str, error: Exception) -> str:
    reason = f"The model {name!r} could not be loaded: {error}\n"
    if Path(name).is_dir():
        return f"{reason}It was looked for in the folder of this name."
    if Path(name).is_file():
        return f"{reason}This is a file: name the folder that it lies in."
    return (
        f"{reason}There is no folder of this name here, so it was looked for on the Hub. If it is "
        "gated or private there, log in with `hf auth login` or pass a token."
    )


def _adapt(config: Any, names: list[str], drop_path_rate: float | None) -> None:
    """Set in a config what its constructor does not take for every model."""
    if hasattr(config, "label_names"):  # timm's, which would be saved for id2label
        config.label_names = names
    if drop_path_rate is None:
        return
    if isinstance(config, TimmWrapperConfig):
        config.model_args = {**(config.model_args or {}), "drop_path_rate": drop_path_rate}
        return
    if not hasattr(config, "drop_path_rate"):
        raise _no_drop_path(config.model_type)
    try:
        config.drop_path_rate = drop_path_rate
    except StrictDataclassError as error:  # CvT has one rate a stage, LeViT an integer
        raise _no_drop_path(config.model_type) from error


def _no_drop_path(model: str) -> ArgumentError:
    return ArgumentError(
        "drop_path_rate", f"{model} has no drop path with one rate for the model: leave it out."
    )
