"""Load the model that the command line names, with a head for the classes of the data."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperConfig,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from clce_hf.errors import abbreviate

_NO_DROP_PATH = "--drop_path_rate: {} has no drop path with one rate for the model: leave it out."


@dataclass
class ModelArguments:
    """Which model to start from."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Model on the Hub, or a folder with a checkpoint."}
    )
    model_type: str | None = field(
        default=None,
        metadata={"help": "Train an untrained model of this type, such as vit, instead."},
    )
    config_name: str | None = field(
        default=None, metadata={"help": "Config, if it is not the model's own."}
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    model_revision: str = field(
        default="main", metadata={"help": "Branch, tag or commit of the model."}
    )
    image_processor_name: str | None = field(
        default=None, metadata={"help": "Image processor, if it is not the model's own."}
    )
    token: str | None = field(
        default=None, metadata={"help": "Hub token; by default that of `hf auth login`."}
    )
    drop_path_rate: float | None = field(
        default=None,
        metadata={"help": "Share of images that skip a residual block in training."},
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that the model's repository brings."}
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Replace a head of another number of classes."}
    )

    def __post_init__(self) -> None:
        if self.drop_path_rate is not None and not 0.0 <= self.drop_path_rate < 1.0:
            raise ValueError(f"drop_path_rate must lie in [0, 1), got {self.drop_path_rate}.")


def check_is_named(arguments: ModelArguments) -> None:
    """Raise `ValueError` unless a model is asked for."""
    if not arguments.model_name_or_path and arguments.model_type is None:
        raise ValueError(
            "A data set needs a model: give --model_name_or_path, for example "
            "google/vit-base-patch16-224-in21k."
        )
    if arguments.model_type is not None and not arguments.model_name_or_path:
        known = sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
        if arguments.model_type not in known:
            raise ValueError(
                f"--model_type {arguments.model_type}: Transformers classifies images with "
                f"{', '.join(known)}."
            )


def load_model(
    arguments: ModelArguments, names: list[str]
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load the model with a head for these classes, and its image processor.

    Raises:
        ValueError: if it cannot be had, or has no drop path to set.
    """
    name = arguments.model_name_or_path or None
    shared = _shared(arguments)
    try:
        config = _load_config(arguments, names, shared)
        if name is None:
            model = AutoModelForImageClassification.from_config(config)
        else:
            model = AutoModelForImageClassification.from_pretrained(
                name,
                config=config,
                ignore_mismatched_sizes=arguments.ignore_mismatched_sizes,
                **shared,
            )
    except OSError as error:
        raise ValueError(_not_loaded(name, error)) from error
    except RuntimeError as error:
        raise ValueError(
            f"The weights of {name!r} do not fit: {error}\nIf only the head is for another number "
            "of classes, pass --ignore_mismatched_sizes."
        ) from error
    except TypeError as error:  # of timm, for an argument that an architecture does not know
        if "drop_path_rate" not in str(error):
            raise
        raise ValueError(_NO_DROP_PATH.format(name)) from error
    processor_name = arguments.image_processor_name or name
    if processor_name is None:
        raise ValueError("--model_type needs --image_processor_name.")
    try:
        return model, AutoImageProcessor.from_pretrained(processor_name, **shared)
    except OSError as error:
        raise ValueError(
            f"The image processor of {processor_name!r} could not be loaded: {error}\nName that of "
            "the model it came from in --image_processor_name."
        ) from error


def check_has_classes(arguments: ModelArguments, names: list[str]) -> None:
    """Refuse to score a checkpoint, as it is, on classes that stand at other places in it.

    Warns of names that it does not know, which may be other words for the same classes.

    Raises:
        ValueError: for another number of classes, or another order.
    """
    name = arguments.config_name or arguments.model_name_or_path
    if not name:
        return
    try:
        config = AutoConfig.from_pretrained(name, **_shared(arguments))
    except OSError as error:
        raise ValueError(_not_loaded(name, error)) from error
    known = class_names(config)
    places = {class_name: i for i, class_name in enumerate(known)}
    if len(known) != len(names) or any(places.get(n, i) != i for i, n in enumerate(names)):
        raise ValueError(
            f"--do_train false: the model has the classes {abbreviate(known)}, and the images "
            f"{abbreviate(names)}: they do not match one by one. `clce-hf evaluate` matches them "
            "by name."
        )
    if unknown := [n for n in names if n not in places]:
        warnings.warn(
            f"The model does not know the classes {abbreviate(unknown)} by name: they are taken "
            "for its classes at the same places.",
            stacklevel=2,
        )


def class_names(config: Any) -> list[str]:
    """Return the names of a model's classes in the order of its logits; none without a config."""
    named = getattr(config, "id2label", None) or {}
    return [str(named[label]) for label in sorted(named)]


def _shared(arguments: ModelArguments) -> dict[str, Any]:
    return {
        "cache_dir": arguments.cache_dir,
        "revision": arguments.model_revision,
        "token": arguments.token,
        "trust_remote_code": arguments.trust_remote_code,
    }


def load_checkpoint(
    name: str, cache_dir: str | None, revision: str, token: str | None, trust_remote_code: bool
) -> tuple[PreTrainedModel, BaseImageProcessor, set[str]]:
    """Load a model as it was saved, its image processor, and the names of missing weights.

    Raises:
        ValueError: if it cannot be had.
    """
    shared: dict[str, Any] = {
        "cache_dir": cache_dir,
        "revision": revision,
        "token": token,
        "trust_remote_code": trust_remote_code,
    }
    try:
        model, loading = AutoModelForImageClassification.from_pretrained(
            name, output_loading_info=True, **shared
        )
        processor = AutoImageProcessor.from_pretrained(name, **shared)
    except OSError as error:
        raise ValueError(_not_loaded(name, error)) from error
    return model, processor, loading["missing_keys"]


def _not_loaded(name: str | None, error: OSError) -> str:
    told = f"The model {name!r} could not be loaded: {error}\n"
    if name is not None and Path(name).is_dir():
        return f"{told}It was looked for in the folder of this name."
    return (
        f"{told}There is no folder of this name here, so it was looked for on the Hub. If it is "
        "gated or private there, log in with `hf auth login` or pass --token."
    )


def _load_config(arguments: ModelArguments, names: list[str], shared: dict[str, Any]) -> Any:
    labels = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }
    if arguments.model_name_or_path:
        name = arguments.config_name or arguments.model_name_or_path
        config: Any = AutoConfig.from_pretrained(name, **labels, **shared)
    else:
        config = AutoConfig.for_model(str(arguments.model_type), **labels)
    if hasattr(config, "label_names"):  # timm's, which would be saved for id2label
        config.label_names = names
    if arguments.drop_path_rate is not None:
        _set_drop_path_rate(config, arguments.drop_path_rate)
    return config


def _set_drop_path_rate(config: Any, rate: float) -> None:
    if isinstance(config, TimmWrapperConfig):
        config.model_args = {**(config.model_args or {}), "drop_path_rate": rate}
        return
    if not hasattr(config, "drop_path_rate"):
        raise ValueError(_NO_DROP_PATH.format(config.model_type))
    try:
        config.drop_path_rate = rate
    except StrictDataclassError as error:  # CvT has one rate a stage, LeViT an integer
        raise ValueError(_NO_DROP_PATH.format(config.model_type)) from error
