"""PEFT adapters, which come without a config of the model, through the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from support.pushing import PROCESSOR, make_trainer
from support.tiny import CLASSES, vit
from transformers import AutoModelForImageClassification

from clce_hf.cli.main import main
from clce_hf.data import ImageFolders, evaluation_rows, load_labeled_images, with_images
from clce_hf.evaluation import infer

pytestmark = pytest.mark.filterwarnings(  # by PEFT
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


@pytest.fixture
def base(hub, tmp_path):
    """A base of two classes on the Hub."""
    vit(num_labels=2).save_pretrained(tmp_path / "base")
    upload(hub, "bob/base", tmp_path / "base")
    return "bob/base"


@pytest.fixture
def images(folder, tmp_path):
    """The validation images, their classes by the names that an adapter has them by."""
    for i, name in enumerate(CLASSES):
        shutil.copytree(folder / "validation" / name, tmp_path / "images" / f"LABEL_{i}")
    return tmp_path / "images"


def upload(hub, name, folder):
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.create(name).files.update(files)


def adapt(base, **names):
    """Return a base with an adapter for four classes."""
    model = AutoModelForImageClassification.from_pretrained(
        base, num_labels=len(CLASSES), ignore_mismatched_sizes=True, **names
    )
    lora = LoraConfig(
        target_modules=["q_proj"], modules_to_save=["classifier"], init_lora_weights=False
    )
    return get_peft_model(model, lora)


def save_adapter(folder, base):
    """Save an adapter for four classes; return it merged into its base."""
    adapted = adapt(base)
    adapted.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return adapted.merge_and_unload()


def run(command, adapter, images, *flags):
    main([command, "--model_name_or_path", str(adapter), "--data_dir", str(images), *flags])


@pytest.mark.parametrize("is_on_hub", [False, True])
def test_an_adapter_is_loaded_with_its_own_head(base, hub, images, tmp_path, is_on_hub):
    name = tmp_path / "adapter"
    merged = save_adapter(name, base)
    if is_on_hub:
        upload(hub, "ann/adapter", name)
        name = "ann/adapter"
    rows = load_labeled_images(ImageFolders({"test": str(images)}))
    expected = infer(merged, with_images(rows, evaluation_rows(PROCESSOR)))
    run("embed", name, images, "--output", str(tmp_path / "e.parquet"))
    embedded = load_dataset("parquet", data_files=str(tmp_path / "e.parquet"), split="train")
    np.testing.assert_allclose(embedded["embedding"][:], expected.embeddings, atol=1e-5)
    run("evaluate", name, images, "--output_dir", str(tmp_path / "out"), "--report", "false")
    metrics = json.loads((tmp_path / "out" / "evaluation.json").read_text())["metrics"]
    loss = torch.nn.functional.cross_entropy(expected.logits, expected.labels).item()
    assert metrics["negative_log_likelihood"] == pytest.approx(loss, rel=1e-4)


def test_an_adapter_that_peft_saved_knows_no_names_of_its_classes(base, folder, tmp_path, capsys):
    save_adapter(tmp_path / "adapter", base)
    output = ["--output_dir", str(tmp_path / "out"), "--report", "false"]
    run("evaluate", tmp_path / "adapter", folder / "validation", *output)
    printed = " ".join(capsys.readouterr().out.split())
    assert "ant, bee, cat, dog; it knows LABEL_0, LABEL_1, LABEL_2, LABEL_3" in printed


@pytest.mark.parametrize("is_on_hub", [False, True])
def test_one_that_the_trainer_saved_does(hub, base, folder, tmp_path, is_on_hub):
    saved = tmp_path / "adapter"
    trainer = make_trainer(saved, lambda **names: adapt(base, **names), label_names=["labels"])
    trainer.save_model()
    if is_on_hub:
        trainer.push_to_hub()
    name = "ann/photos" if is_on_hub else saved
    output = ["--output_dir", str(tmp_path / "out"), "--report", "false"]
    run("evaluate", name, folder / "validation", *output)
    rows = load_labeled_images(ImageFolders({"test": str(folder / "validation")}))
    expected = infer(trainer.model, with_images(rows, evaluation_rows(PROCESSOR)))
    metrics = json.loads((tmp_path / "out" / "evaluation.json").read_text())["metrics"]
    loss = torch.nn.functional.cross_entropy(expected.logits, expected.labels).item()
    assert metrics["negative_log_likelihood"] == pytest.approx(loss, rel=1e-4)
    # Transformers alone loads it as before.
    stock, loading = AutoModelForImageClassification.from_pretrained(
        name, num_labels=len(CLASSES), ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert stock.peft_config and not any(loading.values())


def test_weights_that_do_not_fit_are_refused_in_one_line(
    base, folder, tmp_path, checkpoint, capsys
):
    save_adapter(tmp_path / "adapter", base)
    vit(num_labels=2, hidden_size=16).save_pretrained(tmp_path / "other")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "other")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    shutil.copytree(checkpoint, tmp_path / "edited")
    config = json.loads((tmp_path / "edited" / "config.json").read_text())
    config["intermediate_size"] = 50
    (tmp_path / "edited" / "config.json").write_text(json.dumps(config))
    for name, key in (("adapter", "q_proj.lora_A"), ("edited", "mlp.fc1.weight")):
        with pytest.raises(SystemExit) as refused:
            run("embed", tmp_path / name, folder / "validation")
        message = str(refused.value.code)
        assert f"The model '{tmp_path / name}' has weights of other shapes" in message
        assert key in message and "merge_and_unload()" in message
    assert "Traceback" not in capsys.readouterr().err
