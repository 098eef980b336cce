"""Configs of tiny models, by the name of the model type."""

from typing import Any

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
CONFIGS: dict[str, dict[str, Any]] = {
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
