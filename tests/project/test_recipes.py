"""The authors' settings as config files, and the flags that they need."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from support import ROOT
from support.reference import contrastive_reference
from support.tiny import Images, beit, vit
from support.tiny_models import TINY_MODELS, save_timm
from torchvision.transforms.v2 import RandAugment
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    Dinov2Config,
    SwinConfig,
    TimmWrapperConfig,
    ViTImageProcessor,
)

from clce_hf import CLCETrainer
from clce_hf.cli.main import main, parse
from clce_hf.errors import ArgumentError
from clce_hf.models.pretrained import load_model

FOLDER = ROOT / "examples" / "recipes"
EPOCHS = {"few_shot": 100, "full": 50}
RECIPES = [FOLDER / f"{name}.yaml" for name in EPOCHS]
BY_NAME = {model.name: model for model in TINY_MODELS}
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


def drop_probabilities(model):
    """Of each residual branch that has one."""
    drops = [module for module in model.modules() if type(module).__name__.endswith("DropPath")]
    return [module.drop_prob for module in drops]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_says_what_the_authors_do(recipe):
    model, data, args = parse([str(recipe), "--benchmark", "cifar-fs", "--use_cpu", "true"])
    assert model.drop_path_rate == 0.15
    assert data.rand_augment
    assert (data.source.name, data.source.image_column) == ("uoft-cs/cifar100", "img")
    assert args.per_device_train_batch_size * 8 == 1024
    assert (args.learning_rate, args.layer_decay, args.weight_decay) == (7e-4, 0.65, 0.05)
    assert (args.contrastive_weight, args.temperature) == (0.9, 0.5)
    assert (args.beta, args.variant, args.projection_dim) == (1.0, "in", None)
    assert (args.memory_size, args.head_init) == (0, None)
    assert (args.label_smoothing_factor, args.max_grad_norm) == (0.1, 0)
    assert "adamw" in args.optim
    assert (args.adam_beta1, args.adam_beta2, args.adam_epsilon) == (0.9, 0.999, 1e-8)
    epochs = EPOCHS[recipe.stem]
    assert args.num_train_epochs == epochs
    assert args.get_warmup_steps(epochs * 37) == 5 * 37
    assert args.lr_scheduler_kwargs == {"min_lr": 1e-6}


def test_every_recipe_is_tested():
    assert {file.stem for file in FOLDER.glob("*.yaml")} == {*EPOCHS, "novel_classes", "paper"}


def test_the_recipe_of_the_paper_is_the_formula_as_published(tmp_path):
    flags = ["--learning_rate", "0", "--max_steps", "2", "--logging_strategy", "steps"]
    flags += ["--logging_steps", "1", "--use_cpu", "true", "--output_dir", str(tmp_path)]
    args = parse([str(FOLDER / "paper.yaml"), *flags, "--per_device_train_batch_size", "16"])[2]
    model, images = vit(), Images(16)
    trainer = CLCETrainer(model, args, train_dataset=images)
    trainer.train()
    with torch.no_grad():
        hidden = model.vit(images.pixel_values).last_hidden_state[:, 0]
        logits = model.classifier(hidden).double()
    contrastive = contrastive_reference(hidden, images.targets, 0.5, 1.0, "in")
    cross_entropy = F.cross_entropy(logits, torch.tensor(images.targets))
    published = 0.1 * cross_entropy + 0.9 * contrastive
    # The second step sees the same batch, in another order: with a memory it would differ.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx([published.item()] * 2, rel=1e-5)


def test_the_recipe_for_novel_classes_trains(folder, tmp_path):
    vit(num_labels=4).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    flags = ["--model_name_or_path", str(tmp_path / "vit"), "--use_cpu", "true", "--max_steps", "2"]
    flags += ["--train_dir", str(folder / "train"), "--output_dir", str(tmp_path / "run")]
    recipe = str(FOLDER / "novel_classes.yaml")
    args = parse([recipe, *flags])[2]
    assert (args.contrastive_weight, args.temperature) == (0.5, 0.1)
    main(["train", recipe, *flags])
    assert json.loads((tmp_path / "run" / "all_results.json").read_text())["train_loss"] > 0


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_trains(recipe, folder, tmp_path, monkeypatch):
    augmented = []
    forward = RandAugment.forward
    monkeypatch.setattr(
        RandAugment, "forward", lambda *inputs: augmented.append(1) or forward(*inputs)
    )
    save_timm("timm-beit3", tmp_path / "beit3")
    main(
        [
            *("train", str(recipe), "--train_dir", str(folder / "train")),
            *("--validation_dir", str(folder / "validation")),
            *("--model_name_or_path", str(tmp_path / "beit3")),
            *("--per_device_train_batch_size", "8", "--max_steps", "2", "--use_cpu", "true"),
            *("--logging_strategy", "steps", "--logging_steps", "1", "--disable_tqdm", "true"),
            *("--output_dir", str(tmp_path / "out")),
        ]
    )
    assert len(augmented) >= 2 * 8  # each training image
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "contrastive_loss" in entry] == [1, 2]
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out")
    assert drop_probabilities(model)[-1] == pytest.approx(0.15)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("beit3", "out"))
    assert not torch.equal(before["timm_model.head.weight"], after["timm_model.head.weight"])


# ---- drop path ----


def saved(folder, model):
    model.save_pretrained(folder)
    size = getattr(model.config, "image_size", 32)
    ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(folder)
    return str(folder)


def of_config(config):
    return AutoModelForImageClassification.from_config(config)


def timm_model(architecture, **model_args):
    settings = {"architecture": architecture, "num_labels": 4, "model_args": model_args}
    return of_config(TimmWrapperConfig(**settings))


HAVE = {
    "beit": lambda: beit(num_hidden_layers=3),
    "convnext": lambda: of_config(ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4)),
    "dinov2": lambda: of_config(
        Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28)
    ),
    "swin": lambda: of_config(
        SwinConfig(image_size=32, embed_dim=8, depths=[2, 2], num_heads=[1, 2], window_size=4)
    ),
    "timm": lambda: timm_model("beit3_base_patch16_224", **TINY),
}


@pytest.mark.parametrize("name", HAVE)
def test_the_drop_path_of_models_that_have_one(name, tmp_path):
    folder = saved(tmp_path, HAVE[name]())
    for rate in (0.0, 0.3):
        model, *_ = load_model(
            folder, list("abcd"), drop_path_rate=rate, ignore_mismatched_sizes=name != "beit"
        )
        assert max(drop_probabilities(model), default=0.0) == pytest.approx(rate)


def test_what_a_checkpoint_says_holds_where_no_drop_path_is_asked_for(tmp_path):
    folder = saved(tmp_path, beit(num_hidden_layers=3, drop_path_rate=0.2))
    model, *_ = load_model(folder, list("abcd"))
    assert max(drop_probabilities(model)) == pytest.approx(0.2)


def test_drop_path_does_not_displace_other_arguments_of_timm(tmp_path):
    folder = saved(tmp_path, HAVE["timm"]())
    model, *_ = load_model(folder, list("abcd"), drop_path_rate=0.1)
    assert model.config.model_args == {**TINY, "drop_path_rate": 0.1}


HAVE_NONE = {
    "vit": vit,
    "cvt": BY_NAME["cvt"].build,
    "levit": BY_NAME["levit"].build,
    "timm-dla": lambda: timm_model("dla46_c"),
}


@pytest.mark.parametrize("name", HAVE_NONE)
def test_models_without_drop_path_refuse_it(name, tmp_path):
    folder = saved(tmp_path, HAVE_NONE[name]())
    with pytest.raises(ArgumentError, match="has no drop path") as refused:
        load_model(folder, list("abcd"), drop_path_rate=0.1)
    assert refused.value.argument == "drop_path_rate"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--drop_path_rate", "1"], "--drop_path_rate: got 1.0, but it must lie in [0, 1)"),
        (["--drop_path_rate", "0.1"], "--drop_path_rate: the small ViT has no drop path"),
        (["--rand_augment", "true"], "--rand_augment is for photographs"),
    ],
)
def test_flags_that_do_not_fit_the_digits(flags, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["train", *flags, "--output_dir", str(tmp_path), "--use_cpu", "true"])
    assert message in f"{error.value.code} {capsys.readouterr().err}"
