"""The script that everyone starts from: its flags, and that the lines which the page shows swap."""

import dataclasses
import io
import json
import re
import runpy
import shutil
import sys

import datasets
import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import load_file
from support import ROOT
from support.launching import launch
from support.pushing import TOKEN, repository
from support.tiny import CLASSES, vit
from support.tiny_models import save_timm
from support.upstream_flags import UPSTREAM
from transformers import CLIPImageProcessor, TrainingArguments, ViTImageProcessor, pipeline

import clce_hf

SCRIPT = ROOT / "examples" / "run_image_classification.py"
QUICK = ["--use_cpu", "--disable_tqdm", "true", "--report_to", "none", "--max_steps", "2"]


def diffs():
    """What the lines of each diff of the script replace, as the page shows it."""
    page = (ROOT / "docs" / "drop_in.md").read_text()
    section = page.partition("## The script that everyone starts from")[2]
    shown = re.findall(r"^```diff\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    return [
        ["".join(line[1:] for line in diff.splitlines(True) if line[0] == sign) for sign in "-+"]
        for diff in shown
    ]


def replaced(code, old, new):
    assert code.count(old) == 1
    return code.replace(old, new)


def evaluated(results):
    """How many images were evaluated."""
    return round(results["eval_samples_per_second"] * results["eval_runtime"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint with a head for other classes than those of the photographs."""
    root = tmp_path_factory.mktemp("checkpoint")
    vit(num_labels=9).save_pretrained(root)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(root)
    return root


@pytest.fixture
def run(monkeypatch):
    """Run the script, or changed code of it, with flags; its results."""

    def run(output, *flags, script=SCRIPT):
        command = [str(script), *map(str, flags)]
        if not str(flags[0]).endswith(".yaml"):
            command += ["--output_dir", str(output), *QUICK]
        monkeypatch.setattr(sys, "argv", command)
        runpy.run_path(str(script), run_name="__main__")
        results = output / "all_results.json"
        return json.loads(results.read_text()) if results.exists() else {}

    return run


@pytest.fixture
def flags(folder, checkpoint):
    return [
        *("--train_dir", folder / "train", "--validation_dir", folder / "validation"),
        *("--model_name_or_path", checkpoint, "--ignore_mismatched_sizes"),
    ]


def test_the_flags_are_those_of_transformers():
    script = runpy.run_path(str(SCRIPT))
    kinds = [script["ModelArguments"], script["DataTrainingArguments"]]
    taken = {field.name: field.default for kind in kinds for field in dataclasses.fields(kind)}
    assert taken == UPSTREAM
    assert script["TrainingArguments"] is TrainingArguments


def test_one_line_is_all_that_differs(run, flags, tmp_path):
    (stock, swapped), (arguments, config) = diffs()
    assert stock.count("\n") == swapped.count("\n") == 1
    code = SCRIPT.read_text()
    versions = {
        "stock": replaced(code, swapped, stock),
        "clce": code,
        "no_contrast": replaced(code, arguments, config),
    }
    results, files, trainers = {}, {}, {}
    for name, version in versions.items():
        script = tmp_path / f"{name}.py"
        script.write_text(version)
        trainers[name] = runpy.run_path(str(script))["Trainer"]
        more = ["--contrastive_weight", "0"] if name == "no_contrast" else []
        output = tmp_path / name
        results[name] = run(output, *flags, "--do_train", "--do_eval", *more, script=script)
        files[name] = {file.name for file in output.iterdir()}
    assert trainers["stock"] is transformers.Trainer
    assert trainers["clce"] is clce_hf.CLCETrainer
    metrics = {f"{split}_results.json" for split in ("all", "train", "eval")}
    written = {"model.safetensors", "README.md", "trainer_state.json", "preprocessor_config.json"}
    assert metrics | written <= files["stock"] == files["clce"] == files["no_contrast"]
    assert results["clce"].keys() - results["stock"].keys() == {"eval_contrastive_loss"}
    assert results["stock"].keys() <= results["clce"].keys()
    assert results["no_contrast"]["eval_loss"] == results["stock"]["eval_loss"]
    weights = {name: load_file(tmp_path / name / "model.safetensors") for name in versions}
    for name, value in weights["stock"].items():
        assert torch.equal(value, weights["no_contrast"][name])
    assert any(not torch.equal(w, weights["clce"][name]) for name, w in weights["stock"].items())


def test_evaluation_alone_and_resuming(run, flags, folder, tmp_path):
    whole = run(tmp_path / "run", *flags, "--do_train", "--do_eval", "--save_steps", "1")
    alone = ["--validation_dir", folder / "validation", "--do_eval", "--max_eval_samples", "999"]
    again = run(tmp_path / "eval", "--model_name_or_path", tmp_path / "run", *alone)
    for name in ("eval_loss", "eval_accuracy"):
        assert again[name] == pytest.approx(whole[name])
    assert not (tmp_path / "eval" / "model.safetensors").exists()
    with pytest.raises(SystemExit, match=r"error: .*they do not match one by one"):
        run(tmp_path / "other", "--model_name_or_path", flags[5], *alone)
    before = load_file(tmp_path / "run" / "model.safetensors")
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / "checkpoint-2").rename(tmp_path / "kept")
    resumed = run(
        tmp_path / "run", *flags, "--do_train", "--do_eval", "--resume_from_checkpoint", "true"
    )
    assert resumed["eval_loss"] == whole["eval_loss"]
    after = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_a_file_of_flags_and_a_share_that_is_held_out(run, folder, checkpoint, tmp_path):
    settings = {
        "model_type": "mobilenet_v1",
        "image_processor_name": str(checkpoint),
        "train_dir": str(folder / "train"),
        "output_dir": str(tmp_path / "run"),
        "train_val_split": 0.25,
        "max_train_samples": 20,
        "do_train": True,
        "do_eval": True,
        "learning_rate": "1e-3",
        "num_train_epochs": 1,
        "use_cpu": True,
        "report_to": "none",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    results = run(tmp_path / "run", tmp_path / "run.yaml", "--seed", "7")
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert torch.load(tmp_path / "run" / "training_args.bin", weights_only=False).seed == 7
    assert state["max_steps"] == 3  # 20 of the 30 images that are left, 8 a step
    assert evaluated(results) == 10
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["model_type"] == "mobilenet_v1"
    assert list(config["id2label"].values()) == CLASSES


def test_training_on_all_images(run, folder, checkpoint, tmp_path):
    results = run(
        tmp_path,
        *("--train_dir", folder / "train", "--model_name_or_path", checkpoint, "--do_train"),
        *("--train_val_split", "0", "--ignore_mismatched_sizes", "--max_train_samples", "999"),
    )
    assert "train_loss" in results
    # 40 images are 5 batches of 8
    assert results["epoch"] == pytest.approx(2 / 5)


def images(modes, n):
    generator = np.random.default_rng(0)
    made = []
    for i in range(n):
        mode = modes[i % len(modes)]
        if mode == "I;16":
            made.append(Image.fromarray(generator.integers(0, 65536, (18, 22), np.uint16)))
        else:
            channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
            made.append(Image.fromarray(generator.integers(0, 255, (18, 22, *channels), np.uint8)))
    return made


@pytest.fixture
def animals(hub):
    """Photographs of all kinds; their columns have other names, a class or labels are missing."""
    stored = hub.create("bob/kinds", "dataset")
    features = datasets.Features(
        {"photo": datasets.Image(), "species": datasets.ClassLabel(names=CLASSES)}
    )
    species = {"train": [0, 1, 2, 3] * 4, "validation": [0, 1, 2] * 2, "test": [-1] * 4}
    for split, labels in species.items():
        rows = {"photo": images(["L", "RGBA", "I;16", "RGB"], len(labels)), "species": labels}
        file = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
        stored.files[f"data/{split}-00000-of-00001.parquet"] = file.getvalue()
    return hub


def test_from_the_hub_to_the_hub(run, animals, checkpoint, tmp_path):
    results = run(
        *(tmp_path / "run", "--dataset_name", "bob/kinds", "--cache_dir", tmp_path / "cache"),
        *("--image_column_name", "photo", "--label_column_name", "species"),
        *("--model_name_or_path", checkpoint, "--ignore_mismatched_sizes"),
        *("--do_train", "--do_eval", "--push_to_hub", "--hub_token", TOKEN),
        *("--hub_model_id", "ann/kinds"),
    )
    assert evaluated(results) == 6  # those of the validation split
    files = repository(animals, "ann/kinds").files
    assert {"model.safetensors", "README.md", "eval_results.json"} <= files.keys()
    assert "bob/kinds" in files["README.md"].decode()
    classify = pipeline("image-classification", model="ann/kinds")
    assert classify(Image.new("RGB", (20, 24)))[0]["label"] in CLASSES


def make(kind, folder):
    if kind == "timm":
        save_timm("timm-beit3", folder)
        return
    vit().save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}
    )
    processor.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["timm", "shortest_edge"])
def test_other_checkpoints(run, flags, tmp_path, kind):
    make(kind, tmp_path / "checkpoint")
    named = ["--model_name_or_path", tmp_path / "checkpoint"]
    results = run(tmp_path / "run", *flags, *named, "--do_train", "--do_eval")
    assert "eval_accuracy" in results


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--do_train"], "give dataset_name, train_dir or validation_dir"),
        (["--validation_dir", "photos", "--do_train"], "do_train needs images to train on"),
    ],
)
def test_images_have_to_be_named(run, tmp_path, capsys, given, message):
    with pytest.raises(SystemExit) as refused:
        run(tmp_path, *given)
    assert message in f"{refused.value} {capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_eval_samples", "0", "must be at least 1"),
        ("max_eval_samples", "-1", "must be at least 1"),
        ("max_train_samples", "0", "must be at least 1"),
        ("max_train_samples", "-3", "must be at least 1"),
        ("train_val_split", "1.5", "must lie in [0, 1)"),
        ("train_val_split", "-0.1", "must lie in [0, 1)"),
    ],
)
def test_counts_and_shares_have_ranges(run, flags, tmp_path, capsys, name, value, words):
    with pytest.raises(SystemExit):
        run(tmp_path, *flags, "--do_train", "--do_eval", f"--{name}", value)
    assert f"--{name}: got {value}, but it {words}." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("counts", "given", "message"),
    [
        ({"a": 12}, ["--do_train", "--train_val_split", "0"], "All 12 training images are of one"),
        (
            {"a": 9, "b": 1},
            ["--do_train"],
            r"--train_val_split: .*of b there is one .*or --train_val_split 0 trains on all\.$",
        ),
        (
            {"a": 9, "b": 1},
            ["--do_train", "--do_eval"],
            r"--train_val_split: .*of b there is one image only.*name images to evaluate on\.$",
        ),
        (
            {"a": 6, "b": 6},
            ["--do_eval", "--train_val_split", "0"],
            r"--train_val_split: got 0\.0.* give a validation_dir or a share",
        ),
        ({"a": 6, "b": 6}, [], "Nothing to do: give do_train or do_eval"),
    ],
)
def test_images_that_do_not_suffice(run, checkpoint, tmp_path, counts, given, message):
    for name, count in counts.items():
        (tmp_path / "train" / name).mkdir(parents=True)
        for i, image in enumerate(images(["RGB"], count)):
            image.save(tmp_path / "train" / name / f"{i}.png")
    named = ["--train_dir", tmp_path / "train", "--model_name_or_path", checkpoint]
    with pytest.raises(SystemExit, match=f"^clce-hf: error: {message}"):
        run(tmp_path / "run", *named, "--ignore_mismatched_sizes", *given)
    assert not (tmp_path / "run" / "README.md").exists()


def test_what_cannot_be_read_ends_in_one_line(run, flags, folder, tmp_path):
    damaged = tmp_path / "train"
    shutil.copytree(folder / "train", damaged)
    for file in damaged.glob("ant/*.png"):
        file.write_bytes(file.read_bytes()[:60])
    cases = [
        (["--train_dir", damaged], f"The image {damaged}/ant/"),
        (["--train_dir", tmp_path / "no"], f"There is no folder {str(tmp_path / 'no')!r}"),
        (["--model_name_or_path", tmp_path], "while preparing the run: "),
    ]
    for given, message in cases:
        with pytest.raises(SystemExit) as refused:
            run(tmp_path / "run", *flags, *given, "--do_train")
        assert refused.value.code.startswith(f"clce-hf: error: {message}")
        assert "\n" not in refused.value.code


def test_an_unknown_setting_in_a_file_is_named(run, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_text("{lerning_rate: 1, temperature: 1}")
    with pytest.raises(SystemExit):
        run(tmp_path, file)
    message = capsys.readouterr().err
    assert "run_image_classification.py: error: in the config file, lerning_rate, temp" in message
    assert "did you mean --learning_rate" in message


@pytest.mark.slow
def test_two_processes(flags, tmp_path):
    launch(
        *(str(SCRIPT), *map(str, flags), "--do_train", "--do_eval", *QUICK),
        *("--output_dir", str(tmp_path / "run")),
    )
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    # Each of the two has batches of 8, and there are 40 images.
    assert results["epoch"] == pytest.approx(2 / 3)
    assert (tmp_path / "run" / "model.safetensors").is_file()
