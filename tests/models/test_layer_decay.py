import fnmatch
from typing import Any

import pytest
import torch
from support.tiny import Images, beit, config, logged, vit
from support.tiny_models import TINY_MODELS, TWO_HEADS
from timm.optim import param_groups_layer_decay
from torch import nn
from transformers import (
    SwinConfig,
    SwinForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from clce_hf import CLCETrainer
from clce_hf.models.layer_decay import layer_scales

TRANSFORMER = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
WINDOWS = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (1, 2),
    "num_heads": (2, 2),
}


def scales_by_name(model, decay=0.5):
    scales = layer_scales(model, decay)
    assert scales.keys() == set(model.parameters())
    return {name: scales[p] for name, p in model.named_parameters()}


BY_NAME = {model.name: model for model in (*TINY_MODELS, *TWO_HEADS)}


def transformer(name, blocks="layers", after=("layernorm.*",), heads=("classifier.*",), stem=()):
    """Patterns of the parameters of each layer of a transformer with two blocks, bottom first."""
    return [
        [f"{name}.embeddings.*", *stem],
        [f"{name}.{blocks}.0.*"],
        [f"{name}.{blocks}.1.*"],
        [*(f"{name}.{pattern}" for pattern in after), *heads],
    ]


def swin(name):
    stages = [f"{name}.encoder.layers.{i}.*" for i in (0, 1)]
    return [
        [f"{name}.embeddings.*"],
        *([s] for s in stages),
        [f"{name}.layernorm.*", "classifier.*"],
    ]


LISTED = {
    "vit": (BY_NAME["vit"].build, transformer("vit")),
    "deit": (BY_NAME["deit"].build, transformer("deit")),
    "deit-two-heads": (
        BY_NAME["deitwithteacher"].build,
        transformer("deit", heads=("cls_classifier.*", "distillation_classifier.*")),
    ),
    "beit": (
        lambda: beit(use_relative_position_bias=True),
        transformer("beit", after=("pooler.layernorm.*",)),
    ),
    "beit-shared-bias": (
        lambda: beit(use_shared_relative_position_bias=True),
        transformer(
            "beit",
            after=("pooler.layernorm.*",),
            stem=("beit.shared_position_bias.relative_position_bias_table",),
        ),
    ),
    "beit-positions": (
        lambda: beit(use_absolute_position_embeddings=True, use_mean_pooling=False),
        transformer("beit"),
    ),
    "dinov2": (BY_NAME["dinov2"].build, transformer("dinov2", "encoder.layer")),
    "dinov2-registers": (
        BY_NAME["dinov2_with_registers"].build,
        transformer("dinov2_with_registers", "encoder.layer"),
    ),
    # A stage's downsampling goes with the block before it, as in the fine-tuning code of SimMIM.
    "swin": (BY_NAME["swin"].build, swin("swin")),
    "swinv2": (BY_NAME["swinv2"].build, swin("swinv2")),
    "timm-beit3": (
        BY_NAME["timm-beit3"].build,
        [
            ["timm_model.patch_embed.*", "timm_model.cls_token", "timm_model.pos_embed"],
            ["timm_model.blocks.0.*"],
            ["timm_model.blocks.1.*"],
            ["timm_model.fc_norm.*", "timm_model.head.*"],
        ],
    ),
}


@pytest.mark.parametrize("name", LISTED)
def test_the_rate_of_each_parameter(name):
    build, layers = LISTED[name]
    model = build()
    scales = scales_by_name(model)
    listed = {}
    for layer, patterns in enumerate(layers):
        for pattern in patterns:
            matched = fnmatch.filter(scales, pattern)
            assert matched, pattern
            assert not listed.keys() & set(matched), pattern
            listed |= dict.fromkeys(matched, 0.5 ** (len(layers) - 1 - layer))
    assert scales == listed


def test_stages_are_counted_block_by_block():
    model = SwinForImageClassification(
        SwinConfig(
            image_size=16, patch_size=2, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=2
        )
    )
    scales = scales_by_name(model)
    of_block = {
        (int(stage), int(block)): scale
        for name, scale in scales.items()
        if ".blocks." in name
        for stage, block in [name.split(".layers.")[1].split(".")[0:3:2]]
    }
    assert of_block == {(0, 0): 0.5**3, (0, 1): 0.5**2, (1, 0): 0.5}
    assert scales["swin.embeddings.patch_embeddings.projection.weight"] == 0.5**4
    assert scales["classifier.weight"] == scales["swin.layernorm.weight"] == 1.0


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("test_vit", {}),
        ("beit3_base_patch16_224", TRANSFORMER),
        ("beit_base_patch16_224", TRANSFORMER),
        ("beit_base_patch16_224", {**TRANSFORMER, "use_shared_rel_pos_bias": True}),
        ("deit_tiny_distilled_patch16_224", TRANSFORMER),
        ("swin_tiny_patch4_window7_224", WINDOWS),
        ("test_convnext", {}),
        ("test_efficientnet", {}),
        ("test_resnet", {}),
    ],
)
def test_timm_models_are_grouped_as_timm_groups_them(architecture, options):
    settings: Any = {"architecture": architecture, "num_labels": 3, "model_args": options}
    model = TimmWrapperForImageClassification(TimmWrapperConfig(**settings))
    scales = layer_scales(model, 0.5)
    groups = param_groups_layer_decay(model.timm_model, layer_decay=0.5)
    expected = {p: group["lr_scale"] for group in groups for p in group["params"]}
    assert scales == expected
    assert len(set(expected.values())) > 3


def test_a_head_around_a_timm_model_keeps_the_full_rate():
    model = BY_NAME["timm-beit3"].build()
    model.projection_head = nn.Linear(32, 8)
    assert scales_by_name(model)["projection_head.weight"] == 1.0


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match="layer_decay found no repeated blocks in Linear"):
        layer_scales(nn.Linear(2, 2), 0.5)


def test_the_trainers_optimizer_is_scaled_and_logs_the_full_rate(tmp_path):
    model = vit()
    args = config(tmp_path, layer_decay=0.5, projection_dim=8, lr_scheduler_type="constant")
    trainer = CLCETrainer(model, args, train_dataset=Images())
    trainer.train()
    rate_of = {p: g["lr"] for g in trainer.optimizer.param_groups for p in g["params"]}
    scales = layer_scales(model, 0.5)
    head = set(trainer.projection_head.parameters())
    assert rate_of.keys() == {*model.parameters(), *head}
    assert all(rate_of[p] == pytest.approx(1e-3 * scales.get(p, 1.0)) for p in rate_of)
    assert all(rate_of[p] == 1e-3 for p in head)
    assert logged(trainer, "learning_rate") == [1e-3] * 3
    decays = {p: g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert decays[model.classifier.bias] == 0.0


@pytest.mark.parametrize("name", ["vit", "beit", "dinov2", "swin", "timm-beit3"])
def test_the_same_parameters_decay_in_weight(tmp_path, name):
    """Those that Trainer leaves out, norms and biases among them, stay out."""
    build, _ = LISTED[name]
    decayed = []
    for layer_decay in (None, 0.65):
        model = build()
        args = config(tmp_path, layer_decay=layer_decay, weight_decay=0.05)
        optimizer = CLCETrainer(model, args, train_dataset=Images()).create_optimizer()
        weight_decay = {p: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        decayed.append({n: weight_decay[p] for n, p in model.named_parameters()})
    assert decayed[0] == decayed[1]
    assert set(decayed[0].values()) == {0.0, 0.05}
    assert not any(decay for n, decay in decayed[0].items() if "norm" in n or n.endswith("bias"))


def test_decay_one_changes_nothing(tmp_path):
    models = []
    for decay in (None, 1.0):
        models.append(vit())
        args = config(tmp_path, layer_decay=decay, weight_decay=0.1)
        CLCETrainer(models[-1], args, train_dataset=Images()).train()
    for ours, plain in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, plain)
