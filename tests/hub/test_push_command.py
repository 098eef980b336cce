"""The command line, from the Hub to the Hub."""

import json

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from support.pushing import TOKEN, repository
from support.tiny import CLASSES
from timm.models import save_for_hf
from transformers import AutoModelForImageClassification, pipeline

from clce_hf.cli.main import main


def command(output_dir, *more):
    return [
        *("train", "--model_name_or_path", "bob/base", "--dataset_name", "bob/animals"),
        *("--output_dir", str(output_dir), "--num_train_epochs", "1", "--use_cpu", "true"),
        *("--cache_dir", str(output_dir.parent / "cache"), "--push_to_hub", "true"),
        *("--hub_model_id", "ann/animals-vit", "--hub_token", TOKEN),
        *more,
    ]


def test_the_command_line_goes_from_the_hub_to_the_hub(published, tmp_path, capsys):
    main(command(tmp_path / "run", "--card_pictures", "true"))
    pushed = repository(published, "ann/animals-vit")
    assert pushed.commits[-1] == "End of training"
    assert "embeddings.png" in pushed.files
    card = ModelCard(pushed.files["README.md"].decode())
    data = card.data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-classification"
    assert (data.base_model, data.license) == ("bob/base", "apache-2.0")
    assert data.datasets == ["bob/animals"]
    assert {"clce", "image-classification", "generated_from_trainer"} <= set(data.tags)
    assert data.metrics == ["accuracy", "balanced_accuracy", "macro_f1"]
    (result,) = [result for result in data.eval_results if result.metric_type == "accuracy"]
    metrics = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert result.metric_value == metrics["eval_accuracy"]
    assert (result.dataset_type, result.dataset_config) == ("bob/animals", "default")
    assert result.dataset_split == "test"
    assert result.dataset_revision == published.repositories["dataset", "bob/animals"].sha
    for part in ("(1 - 0.9)", "| temperature (tau) | 0.3 |", "arXiv 2402.14551", "## Versions"):
        assert part in card.text
    assert TOKEN not in capsys.readouterr().out


@pytest.mark.parametrize("what", ["bob/base", "bob/animals"])
def test_a_gated_repository_says_how_to_get_in(published, tmp_path, what, capsys):
    kind = "model" if what == "bob/base" else "dataset"
    published.repositories[kind, what].gated = True
    with pytest.raises(SystemExit) as stopped:
        main(command(tmp_path / "run"))
    assert what in str(stopped.value) and "hf auth login" in str(stopped.value)
    main(command(tmp_path / "run", "--token", "hf_bob"))
    assert "model.safetensors" in repository(published, "ann/animals-vit").files


@pytest.mark.parametrize("status", [403, 0])  # 0 is a dropped connection
def test_the_command_line_reports_a_failed_upload(published, tmp_path, status):
    published.fail("POST", "/commit/", status)
    with pytest.raises(SystemExit, match="saved in output_dir, but was not uploaded"):
        main(command(tmp_path / "run"))
    assert load_file(tmp_path / "run" / "model.safetensors")
    assert (tmp_path / "run" / "eval_results.json").is_file()


def test_beit3_goes_from_timm_to_the_hub_and_back(published, tmp_path):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    pretrained = timm.create_model("beit3_base_patch16_224", num_classes=0, **sizes)
    folder = tmp_path / "timm"
    save_for_hf(pretrained, folder, model_args=sizes, safe_serialization=True)
    # Transformers' wrapper sets these itself, and the published BEiT-3 has no model_args at all.
    settings = json.loads((folder / "config.json").read_text())
    settings["model_args"] = sizes
    (folder / "config.json").write_text(json.dumps(settings))
    files = published.create("timm/beit3_tiny.pt").files
    files.update({file.name: file.read_bytes() for file in folder.iterdir()})

    main(command(tmp_path / "run", "--model_name_or_path", "timm/beit3_tiny.pt"))
    model, loading = AutoModelForImageClassification.from_pretrained(
        "ann/animals-vit", output_loading_info=True
    )
    assert not any(loading.values())
    assert model.timm_model.get_classifier().out_features == 4
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], p) for name, p in model.timm_model.state_dict().items())
    # Trained from timm's weights, not from new ones: one epoch at 5e-5 moves them little.
    start = pretrained.state_dict()["blocks.0.mlp.fc1.weight"]
    end = model.timm_model.state_dict()["blocks.0.mlp.fc1.weight"]
    assert 0 < (end - start).abs().max() < 0.01 < start.abs().max()
    classify = pipeline("image-classification", model="ann/animals-vit")
    assert classify(Image.new("RGB", (20, 24)))[0]["label"] in CLASSES
    card = ModelCard(repository(published, "ann/animals-vit").files["README.md"].decode())
    assert (card.data.base_model, card.data.library_name) == ("timm/beit3_tiny.pt", "transformers")
