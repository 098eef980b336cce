"""A tiny model of every image classifier that Transformers maps, built from its config."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    PreTrainedModel,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from support.tiny_configs import CONFIGS

NUM_LABELS = 3

EXCEPTIONS = {
    "shieldgemma2": "scores policies through a language model: it has no classification layer",
    "dinat": "its neighborhood attention needs the natten library, which has no CPU wheel",
}


def pixels(n: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 3, size, size, generator=generator)}


def color_tokens(n: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 16, (n, size * size), generator=generator)}


def patch_sequences(n: int, size: int, generator: torch.Generator) -> dict[str, Tensor]:
    side = size // 8
    return {
        "pixel_values": torch.randn(n, side * side, 3 * 8 * 8, generator=generator),
        "pixel_attention_mask": torch.ones(n, side * side, dtype=torch.long),
        "spatial_shapes": torch.tensor([[side, side]] * n),
    }


@dataclass(frozen=True)
class TinyModel:
    """One model class of the mapping, and the inputs that it takes."""

    name: str
    model_type: str
    build: Callable[[], PreTrainedModel]
    layer: str = "classifier"
    image_size: int = 32
    inputs: Callable[[int, int, torch.Generator], dict[str, Tensor]] = field(default=pixels)

    def batch(self, n: int, seed: int = 0) -> dict[str, Tensor]:
        """Inputs of n images, without labels."""
        return self.inputs(n, self.image_size, torch.Generator().manual_seed(seed))


_LAYERS = {
    "bit": "classifier.1",
    "hgnet_v2": "fc",
    "imagegpt": "score",
    "levit": "classifier.linear",
    "pp_lcnet": "head",
    "regnet": "classifier.1",
    "resnet": "classifier.1",
    "textnet": "fc",
    "perceiverlearned": "perceiver.decoder.decoder.final_layer",
    "perceiverfourier": "perceiver.decoder.decoder.final_layer",
    "perceiverconvprocessing": "perceiver.decoder.decoder.final_layer",
    "deitwithteacher": "cls_classifier",
    "levitwithteacher": "classifier.linear",
    "swiftformer": "head",
    "timm-beit3": "timm_model.head",
    "timm-vit": "timm_model.head",
    "timm-efficientnet": "timm_model.classifier",
}
_IMAGE_SIZES = {"imagegpt": 8, "levit": 64, "mobilevitv2": 64, "textnet": 64}
_INPUTS = {"imagegpt": color_tokens, "siglip2": patch_sequences}
_TIMM = {
    "timm-beit3": (
        "beit3_base_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "timm-vit": ("test_vit", {"img_size": 32}),
    "timm-efficientnet": ("test_efficientnet", {}),
}


def _from_config(model_type: str, model_class: type[PreTrainedModel]) -> PreTrainedModel:
    options: dict[str, Any] = {**CONFIGS[model_type], "num_labels": NUM_LABELS}
    config: Any = CONFIG_MAPPING[model_type](**options)
    for part in (config, getattr(config, "vision_config", None)):
        if part is not None and hasattr(part, "initializer_range"):
            part.initializer_range = 0.1
    return model_class(config)


def _from_timm(architecture: str, model_args: dict[str, Any]) -> PreTrainedModel:
    options: dict[str, Any] = {"num_labels": NUM_LABELS, "model_args": model_args}
    config = TimmWrapperConfig(architecture=architecture, **options)
    return TimmWrapperForImageClassification(config)


def save_timm(name: str, folder: Any) -> None:
    """Save a checkpoint of timm, which says how its images are prepared."""
    architecture, model_args = _TIMM[name]
    options: dict[str, Any] = {"num_labels": 4, "model_args": model_args}
    config = TimmWrapperConfig(architecture=architecture, **options)
    config.pretrained_cfg = {
        "input_size": [3, 32, 32],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.2, 0.3],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "num_classes": 4,
    }
    TimmWrapperForImageClassification(config).save_pretrained(folder)


def _all() -> dict[str, TinyModel]:
    models = {}
    mapping: Any = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    for config_class, mapped in mapping.items():
        model_type = config_class.model_type
        if model_type not in CONFIGS:
            continue
        for model_class in mapped if isinstance(mapped, tuple) else (mapped,):
            name = model_type + model_class.__name__.partition("ForImageClassification")[2].lower()

            def build(model_type=model_type, model_class=model_class):
                return _from_config(model_type, model_class)

            models[name] = TinyModel(
                name,
                model_type,
                build,
                _LAYERS.get(name, "classifier"),
                _IMAGE_SIZES.get(model_type, 32),
                _INPUTS.get(model_type, pixels),
            )
    for name, (architecture, model_args) in _TIMM.items():

        def build_timm(architecture=architecture, model_args=model_args):
            return _from_timm(architecture, model_args)

        models[name] = TinyModel(name, "timm_wrapper", build_timm, _LAYERS[name])
    return models


# Their logits are the mean of two heads.
_TWO_HEADED = ("deitwithteacher", "levitwithteacher", "swiftformer")
TINY_MODELS = [model for name, model in _all().items() if name not in _TWO_HEADED]
TWO_HEADS = [model for name, model in _all().items() if name in _TWO_HEADED]
