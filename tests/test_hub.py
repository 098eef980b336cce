import functools
import getpass
import io
import json
import logging
import math
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
from huggingface_hub import ModelCard, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx
from PIL import Image
from safetensors.torch import load_file
from timm.models import save_for_hf
from tiny import CLASSES, Images, StopAt, beit, config, logged, vit
from transformers import AutoModelForImageClassification, ViTImageProcessor, pipeline

from clce_hf import CLCETrainer
from clce_hf.cli import main
from clce_hf.model_card import measured

NAMES = {
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: i for i, name in enumerate(CLASSES)},
}
TOKEN = "hf_ann"
PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})


def make_trainer(folder, build=vit, **fields):
    settings = {
        "hub_model_id": "ann/photos",
        "hub_token": TOKEN,
        "max_steps": -1,
        "num_train_epochs": 2,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        **fields,
    }
    return CLCETrainer(
        build(**NAMES),
        config(folder, **settings),
        train_dataset=Images(16),
        eval_dataset=Images(16, seed=1),
        processing_class=PROCESSOR,
    )


def repository(hub, id="ann/photos"):
    return hub.repositories["model", id]


def root_files(repository):
    return {name for name in repository.files if "/" not in name}


def run_without_the_package(script, *arguments, cwd):
    """Run a script where the package cannot be imported; return what it prints and warns."""
    blocked = "import sys; sys.modules['clce_hf'] = None\n"
    finished = subprocess.run(
        [sys.executable, "-c", blocked + script, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout, finished.stderr


@pytest.mark.parametrize(("build", "projection_dim"), [(vit, 8), (beit, None)])
def test_a_pushed_model_loads_anywhere(hub, tmp_path, build, projection_dim):
    trainer = make_trainer(tmp_path / "run", build, projection_dim=projection_dim)
    trainer.train()
    trainer.push_to_hub()
    pushed = repository(hub)
    assert pushed.commits == ["End of training"]
    expected = {
        *("README.md", "config.json", "model.safetensors", "preprocessor_config.json"),
        *("training_args.bin", "training_curve.png", "embeddings.png"),
    }
    head = {"projection_head.safetensors"} if projection_dim else set()
    assert root_files(pushed) == set(pushed.files) == expected | head
    for name in ("training_curve.png", "embeddings.png"):
        picture = Image.open(io.BytesIO(pushed.files[name])).convert("L")
        assert np.asarray(picture).std() > 5

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8))
    image.save(tmp_path / "image.jpg")
    pixels = PROCESSOR(Image.open(tmp_path / "image.jpg"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = trainer.model.eval()(pixels).logits[0]
    script = """
import json, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
processor = AutoImageProcessor.from_pretrained("ann/photos")
model, loading = AutoModelForImageClassification.from_pretrained(
    "ann/photos", output_loading_info=True)
assert not any(loading.values()), loading
with torch.no_grad():
    inputs = processor(Image.open("image.jpg"), return_tensors="pt")
    print(json.dumps(model(**inputs).logits[0].tolist()))
"""
    snippet = pushed.files["README.md"].decode().split("```python\n")[1].split("```")[0]
    printed, warned = run_without_the_package(script + snippet, cwd=tmp_path)
    first, second = printed.strip().splitlines()
    torch.testing.assert_close(torch.tensor(json.loads(first)), logits)
    best = eval(second)[0]
    assert best["label"] == CLASSES[logits.argmax()]
    assert best["score"] == pytest.approx(logits.softmax(0).max().item(), abs=1e-5)
    assert "newly initialized" not in warned and "not used" not in warned


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_every_strategy_uploads_what_it_says(hub, tmp_path, strategy):
    trainer = make_trainer(
        tmp_path,
        push_to_hub=True,
        hub_strategy=strategy,
        hub_always_push=True,
        save_strategy="epoch",
        projection_dim=8,
    )
    trainer.train()
    pushed = repository(hub)
    folders = {name.split("/")[0] for name in pushed.files if "/" in name}
    if strategy == "end":
        assert pushed.files == {}
    else:
        assert {"model.safetensors", "projection_head.safetensors"} <= root_files(pushed)
    kept = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-2", "checkpoint-4"}}
    assert folders == kept.get(strategy, set())
    trainer.save_model()
    assert pushed.files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    head = "projection_head.safetensors"
    assert pushed.files[head] == (tmp_path / head).read_bytes()
    assert "README.md" in pushed.files


def test_a_run_goes_on_from_the_checkpoint_on_the_hub(hub, tmp_path):
    fields = {"projection_dim": 8, "logging_strategy": "steps", "logging_steps": 1}
    whole = make_trainer(tmp_path / "whole", num_train_epochs=4, **fields)
    whole.train()
    saved = {"push_to_hub": True, "hub_strategy": "checkpoint", "hub_always_push": True}
    cut = make_trainer(
        tmp_path / "cut", num_train_epochs=4, save_strategy="epoch", **saved, **fields
    )
    cut.add_callback(StopAt(4))
    cut.train()
    folder = snapshot_download("ann/photos", allow_patterns="last-checkpoint/*")
    checkpoint = str(Path(folder, "last-checkpoint"))
    resumed = make_trainer(tmp_path / "new", num_train_epochs=4, **fields)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert logged(resumed, "loss") == logged(whole, "loss")
    expected = whole.model.state_dict()
    assert all(torch.equal(expected[name], p) for name, p in resumed.model.state_dict().items())


# (method, path, status): 0 is a dropped connection. The client tries 5xx and drops again for long.
FAILURES = [
    ("POST", "/preupload/", 403),
    ("POST", "/preupload/", 401),
    ("POST", "/validate-yaml", 400),
    ("POST", "/objects/batch", 403),
    ("PUT", "/lfs/", 403),
    ("POST", "/verify", 400),
    ("POST", "/commit/", 409),
    ("POST", "/commit/", 413),
    ("POST", "/commit/", 500),
    ("POST", "/commit/", 0),
    ("POST", "/repos/create", 403),
    ("POST", "/repos/create", 500),
    ("POST", "/repos/create", 0),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    trainer = make_trainer(tmp_path_factory.mktemp("trained"), projection_dim=8)
    trainer.train()
    return trainer


@pytest.mark.parametrize(("method", "path", "status"), FAILURES)
def test_a_failed_upload_loses_nothing(hub, trained, caplog, method, path, status):
    folder = Path(trained.args.output_dir)
    for file in folder.glob("*.*"):
        file.unlink()
    trained.hub_model_id = None
    hub.fail(method, path, status)
    with pytest.raises((HfHubHTTPError, httpx.HTTPError, ValueError, RuntimeError)) as failure:
        trained.push_to_hub()
    saved = load_file(folder / "model.safetensors")
    assert all(
        torch.equal(saved[k], v) for k, v in trained.model.state_dict().items() if k in saved
    )
    for text in (caplog.text, str(failure.value)):
        assert TOKEN not in text and str(folder) not in text
    assert "nothing is lost" in caplog.text and "push_to_hub" in caplog.text
    hub.recover()
    trained.push_to_hub()
    assert {"model.safetensors", "README.md"} <= repository(hub).files.keys()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/preupload/", 503), ("PUT", "/lfs/", 500), ("PUT", "/lfs/", 0)],
)
def test_a_passing_problem_does_not_show(hub, trained, method, path, status):
    trained.hub_model_id = None
    hub.fail(method, path, status, times=1)
    trained.push_to_hub()
    assert {"model.safetensors", "README.md"} <= repository(hub).files.keys()


@pytest.mark.parametrize(("path", "status"), [("/preupload/", 403), ("/commit/", 409)])
def test_uploads_that_fail_in_the_background_are_told(hub, tmp_path, caplog, path, status):
    trainer = make_trainer(
        tmp_path, push_to_hub=True, hub_strategy="all_checkpoints", save_strategy="epoch"
    )
    hub.fail("POST", path, status)
    trainer.train()
    assert trainer.state.global_step == 4
    told = [record for record in caplog.records if record.name == "clce_hf.trainer"]
    assert told and all(record.levelno == logging.ERROR for record in told)
    assert "nothing is lost" in caplog.text and TOKEN not in caplog.text
    assert load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    hub.recover()
    trainer.push_to_hub()
    assert "model.safetensors" in repository(hub).files


def test_a_download_goes_on_where_it_was_cut(hub, tmp_path):
    # The client keeps what it has by 10 MB.
    trainer = make_trainer(tmp_path, functools.partial(vit, intermediate_size=60_000))
    trainer.push_to_hub()
    hub.fail("GET", "model.safetensors", 0, times=1)
    model = AutoModelForImageClassification.from_pretrained("ann/photos")
    expected = trainer.model.state_dict()
    assert all(torch.equal(expected[name], p) for name, p in model.state_dict().items())
    ranges = [headers.get("Range") for method, path, headers in hub.requests if method == "GET"]
    assert "bytes=10485760-" in ranges


def test_a_private_repository_is_read_with_its_token_alone(hub, trained, monkeypatch):
    trained.hub_model_id = None
    monkeypatch.setattr(trained.args, "hub_private_repo", True)
    monkeypatch.setattr(trained.args, "hub_model_id", "ann/secret")
    trained.push_to_hub()
    assert repository(hub, "ann/secret").private
    with pytest.raises(OSError, match=r"not a valid model identifier"):
        AutoModelForImageClassification.from_pretrained("ann/secret")
    model = AutoModelForImageClassification.from_pretrained("ann/secret", token=TOKEN)
    assert model.config.id2label == trained.model.config.id2label


# ---- the command line, from the Hub to the Hub ----


@pytest.fixture
def published(hub):
    """A base model with a licence, and photographs as Parquet files, on the Hub."""
    base = hub.create("bob/base")
    model = vit()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        PROCESSOR.save_pretrained(folder)
        base.files.update({file.name: file.read_bytes() for file in Path(folder).iterdir()})
    base.files["README.md"] = b"---\nlicense: apache-2.0\n---\n# base\n"
    generator = np.random.default_rng(0)
    animals = hub.create("bob/animals", "dataset")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    )
    for split, n in (("train", 16), ("test", 8)):
        pixels = generator.integers(0, 255, (n, 16, 16, 3), np.uint8)
        rows = {"image": [Image.fromarray(p) for p in pixels], "label": [i % 4 for i in range(n)]}
        files = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(files)
        animals.files[f"data/{split}-00000-of-00001.parquet"] = files.getvalue()
    return hub


def command(output_dir, *more):
    return [
        *("train", "--model_name_or_path", "bob/base", "--dataset_name", "bob/animals"),
        *("--output_dir", str(output_dir), "--num_train_epochs", "1", "--use_cpu", "true"),
        *("--cache_dir", str(output_dir.parent / "cache"), "--push_to_hub", "true"),
        *("--hub_model_id", "ann/animals-vit", "--hub_token", TOKEN),
        *more,
    ]


def test_the_command_line_goes_from_the_hub_to_the_hub(published, tmp_path, capsys):
    main(command(tmp_path / "run"))
    pushed = repository(published, "ann/animals-vit")
    assert pushed.commits[-1] == "End of training"
    card = ModelCard(pushed.files["README.md"].decode())
    data = card.data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-classification"
    assert (data.base_model, data.license) == ("bob/base", "apache-2.0")
    assert data.datasets == ["bob/animals"]
    assert {"clce", "image-classification", "generated_from_trainer"} <= set(data.tags)
    assert data.metrics == ["accuracy"]
    (result,) = [result for result in data.eval_results if result.metric_type == "accuracy"]
    metrics = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert result.metric_value == metrics["eval_accuracy"]
    assert (result.dataset_type, result.dataset_config) == ("bob/animals", "default")
    assert result.dataset_split == "test"
    assert result.dataset_revision == published.repositories["dataset", "bob/animals"].sha
    for part in ("(1 - 0.9)", "| temperature (tau) | 0.5 |", "arXiv 2402.14551", "## Versions"):
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


def test_the_command_line_tells_a_failed_upload(published, tmp_path):
    published.fail("POST", "/commit/", 403)
    with pytest.raises(SystemExit, match="saved in output_dir, but was not uploaded"):
        main(command(tmp_path / "run"))
    assert load_file(tmp_path / "run" / "model.safetensors")
    assert (tmp_path / "run" / "eval_results.json").is_file()


# ---- the model card ----


def test_the_card_holds_nothing_of_the_machine(hub, tmp_path, monkeypatch):
    base = tmp_path / "base"
    vit(**NAMES).save_pretrained(base)
    trainer = make_trainer(
        tmp_path / "run", lambda **_: AutoModelForImageClassification.from_pretrained(base)
    )
    trainer.train()
    base.rename(tmp_path / "moved")  # a name that is no folder any more is no model on the Hub
    trainer.push_to_hub()
    pushed = repository(hub).files
    card = pushed["README.md"].decode()
    for secret in (TOKEN, str(tmp_path), str(Path.home()), getpass.getuser(), socket.gethostname()):
        assert secret not in card.replace("generated_from_trainer", "")
    assert "base_model" not in card
    for name, content in pushed.items():
        assert TOKEN.encode() not in content, name
    arguments = torch.load(tmp_path / "run" / "training_args.bin", weights_only=False)
    assert arguments.hub_token is None and arguments.hub_model_id == "ann/photos"


def test_a_card_of_cross_entropy_alone_does_not_speak_of_clce(tmp_path):
    trainer = make_trainer(tmp_path, contrastive_weight=0.0)
    trainer.train()
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "README.md")
    assert "clce" not in card.data.tags
    assert "| loss | cross-entropy |" in card.text and "temperature" not in card.text
    assert not (tmp_path / "embeddings.png").exists()


def test_the_card_takes_the_arguments_of_trainer(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.create_model_card(
        license="mit", tags="birds", finetuned_from="bob/base", dataset_tags="bob/birds"
    )
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.base_model, data.datasets) == ("mit", "bob/base", ["bob/birds"])
    assert "birds" in data.tags and data.eval_results is None


@pytest.mark.parametrize("best_step", [None, 2])
def test_the_card_reports_the_model_that_is_kept(best_step):
    history = [
        {"loss": 1.0, "step": 2, "epoch": 1},
        {"eval_loss": 0.5, "eval_accuracy": 0.8, "eval_runtime": 1.0, "step": 2, "epoch": 1},
        {"eval_loss": 0.7, "eval_accuracy": 0.7, "step": 4, "epoch": 2},
        {"train_runtime": 3.0, "step": 4, "epoch": 2},
    ]
    kept = {"loss": 0.7, "accuracy": 0.7} if best_step is None else {"loss": 0.5, "accuracy": 0.8}
    assert measured(history, best_step) == kept
    after = {"eval_loss": 0.4, "eval_x": math.nan, "eval_samples_per_second": 9.0, "step": 4}
    assert measured([*history, after], best_step) == {"loss": 0.4}
    assert measured([], best_step) == {}


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
