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


_TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 8,
}
_PYRAMID = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_TEXT = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 8,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_CLIP = {"text_config": _TEXT, "vision_config": _TRANSFORMER}
_WINDOWS = {
    "image_size": 32,
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 4,
}
_HEADS = {"num_attention_heads": [1, 2, 2, 4], "sr_ratios": [4, 2, 1, 1]}
_PERCEIVER = {
    "num_latents": 8,
    "d_latents": 32,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
    "d_model": 32,
    "image_size": 32,
}

# Where it is the default that starves the first layer of gradient (layer scales of 1e-6, weights
# of 0.02 in layers this thin), the config turns it up.
_CONFIGS: dict[str, dict[str, Any]] = {
    "beit": _TRANSFORMER,
    "bit": {**_PYRAMID, "embedding_size": 8, "num_groups": 4},
    "clip": _CLIP,
    "convnext": {**_PYRAMID, "layer_scale_init_value": 0.1},
    "convnextv2": _PYRAMID,
    "cvt": {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 2], "depth": [1, 2, 3]},
    "data2vec-vision": _TRANSFORMER,
    "deit": _TRANSFORMER,
    "dinov2": _TRANSFORMER,
    "dinov2_with_registers": _TRANSFORMER,
    "donut-swin": _WINDOWS,
    "efficientnet": {
        "image_size": 32,
        "width_coefficient": 0.25,
        "depth_coefficient": 0.1,
        "hidden_dim": 320,
        "dropout_rate": 0.0,
    },
    "focalnet": {
        "image_size": 32,
        "embed_dim": 16,
        "hidden_sizes": [16, 32],
        "depths": [1, 1],
        "focal_levels": [2, 2],
        "focal_windows": [3, 3],
    },
    "hgnet_v2": {
        **_PYRAMID,
        "stem_channels": [3, 8, 8],
        "stage_in_channels": [8, 8, 16, 24],
        "stage_mid_channels": [8, 8, 8, 8],
        "stage_out_channels": [8, 16, 24, 32],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 2, 2],
    },
    "hiera": {
        "image_size": [32, 32],
        "embed_dim": 8,
        "depths": [1, 1, 1],
        "num_heads": [1, 2, 2],
        "num_query_pool": 2,
        "masked_unit_size": [4, 4],
        "masked_unit_attention": [True, True, False],
    },
    "ijepa": _TRANSFORMER,
    "imagegpt": {"vocab_size": 17, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2},
    "levit": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "metaclip_2": _CLIP,
    "mobilenet_v1": {"image_size": 32, "depth_multiplier": 0.25, "classifier_dropout_prob": 0.0},
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.25, "classifier_dropout_prob": 0.0},
    "mobilevit": {
        "image_size": 32,
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 40],
        "num_attention_heads": 2,
    },
    "mobilevitv2": {
        "image_size": 64,
        "width_multiplier": 0.25,
        "n_attn_blocks": [1, 1, 1],
        "base_attn_unit_dims": [64, 64, 64],
    },
    "perceiver": _PERCEIVER,
    "poolformer": {**_PYRAMID, "layer_scale_init_value": 0.1},
    "pp_lcnet": {"scale": 0.25, "class_expand": 32},
    "pvt": {
        **_PYRAMID,
        "image_size": 32,
        "num_attention_heads": [1, 2, 2, 4],
        "sequence_reduction_ratios": [4, 2, 1, 1],
    },
    "pvt_v2": {**_PYRAMID, **_HEADS, "image_size": 32},
    "regnet": {**_PYRAMID, "embedding_size": 8, "groups_width": 8},
    "resnet": {**_PYRAMID, "embedding_size": 8},
    "segformer": {**_PYRAMID, **_HEADS},
    "siglip": _CLIP,
    "siglip2": {
        "text_config": _TEXT,
        "vision_config": {**_TRANSFORMER, "num_patches": 16},
    },
    "swiftformer": {
        "depths": [1, 1, 1, 1],
        "embed_dims": [8, 16, 24, 32],
        "layer_scale_init_value": 0.1,
    },
    "swin": _WINDOWS,
    "swinv2": _WINDOWS,
    "textnet": {"hidden_sizes": [8, 8, 16, 24, 32], "stem_out_channels": 8, "image_size": [32, 32]},
    "vit": _TRANSFORMER,
    "vit_msn": _TRANSFORMER,
}
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
    options: dict[str, Any] = {**_CONFIGS[model_type], "num_labels": NUM_LABELS}
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
        if model_type not in _CONFIGS:
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
