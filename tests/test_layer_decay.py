import pytest
import timm
import torch
from tiny import Images, beit, config, logged, vit
from torch import nn
from transformers import SwinConfig, SwinForImageClassification

from clce_hf import CLCETrainer
from clce_hf.layer_decay import layer_scales


def scales_by_name(model, decay=0.5):
    scales = layer_scales(model, decay)
    assert scales.keys() == set(model.parameters())
    return {name: scales[p] for name, p in model.named_parameters()}


@pytest.mark.parametrize("build", [vit, beit])
def test_blocks_are_counted_from_the_top(build):
    model = build()
    for name, scale in scales_by_name(model).items():
        layer = 3
        if "embeddings" in name or "relative_position_bias" in name:
            layer = 0
        elif ".layers." in name:
            layer = 1 + int(name.split(".layers.")[1].split(".")[0])
        assert scale == 0.5 ** (3 - layer), name


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


def test_timm_models_are_counted_too():
    model = timm.create_model("test_vit", num_classes=3)
    scales = scales_by_name(model)
    depth = len(model.blocks)
    assert scales["patch_embed.proj.weight"] == scales["pos_embed"] == 0.5 ** (depth + 1)
    assert scales[f"blocks.{depth - 1}.mlp.fc1.weight"] == 0.5
    assert scales["head.weight"] == 1.0


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
    assert rate_of.keys() == set(model.parameters())
    assert all(rate_of[p] == pytest.approx(1e-3 * scales[p]) for p in rate_of)
    assert rate_of[model.projection_head.output.weight] == 1e-3
    assert logged(trainer, "learning_rate") == [1e-3] * 3
    decays = {p: g["weight_decay"] for g in trainer.optimizer.param_groups for p in g["params"]}
    assert decays[model.classifier.bias] == 0.0


def test_decay_one_changes_nothing(tmp_path):
    models = []
    for decay in (None, 1.0):
        models.append(vit())
        args = config(tmp_path, layer_decay=decay, weight_decay=0.1)
        CLCETrainer(models[-1], args, train_dataset=Images()).train()
    for ours, plain in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, plain)
