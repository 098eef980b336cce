"""Every snippet of the README and the docs runs."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import ROOT
from support.benchmark_schemas import publish
from support.launching import launch
from support.swap import STOCK, SWAPPED
from support.tiny import Images, vit
from support.tiny_models import save_timm
from transformers import ViTImageProcessor

from clce_hf.cli.main import main

pytestmark = pytest.mark.early

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def snippets(language):
    return [
        pytest.param(
            page,
            code,
            id=f"{page.stem}-{number}",
            marks=[pytest.mark.slow] if "clce-hf compare" in code else [],
        )
        for page in PAGES
        for number, code in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        )
    ]


@pytest.fixture
def workplace(hub, tmp_path, monkeypatch):
    """A folder with the photographs and checkpoints that the snippets name, and a Hub account."""
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    publish(hub, "oxford-flowers-102")
    hub.create("ann/photos").files["last-checkpoint/trainer_state.json"] = b"{}"
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = generator.integers(0, 255, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    checkpoint = tmp_path / "google" / "vit-base-patch16-224-in21k"
    vit(num_labels=2).save_pretrained(checkpoint)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(checkpoint)
    save_timm("timm-beit3", tmp_path / "timm" / "beit3_base_patch16_224.in22k_ft_in1k")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def supcontrast(features, labels):
    """The loss of SupContrast, of views (n, views, d) of images, as its paper has it."""
    rows, classes = features.flatten(0, 1), labels.repeat_interleave(features.shape[1])
    itself = torch.eye(len(rows), dtype=torch.bool)
    similarities = (rows @ rows.T / 0.07).masked_fill(itself, -1e9)
    positives = (classes[:, None] == classes) & ~itself
    shares = similarities.log_softmax(1)
    return -((shares * positives).sum(1) / positives.sum(1)).mean()


def test_there_are_snippets():
    assert len(snippets("python")) >= 4
    assert len(snippets("bash")) >= 5
    fences = sum(len(re.findall(r"^```\w", page.read_text(), re.MULTILINE)) for page in PAGES)
    languages = ("python", "bash", "diff")
    assert fences == sum(len(snippets(language)) for language in languages)


@pytest.mark.parametrize(("page", "code"), snippets("diff"))
def test_a_changed_line_is_the_one_that_the_scripts_change(page, code):
    removed = "".join(line[1:] for line in code.splitlines(True) if line[0] == "-")
    added = "".join(line[1:] for line in code.splitlines(True) if line[0] == "+")
    # Those of the example are applied in tests/invariants/test_run_image_classification.py.
    example = (ROOT / "examples" / "run_image_classification.py").read_text()
    of_example = removed and added and (removed in example or added in example)
    assert (removed, added) == (STOCK, SWAPPED) or of_example


# The snippets leave the device and pinning to the machine, and one without an accelerator warns.
@pytest.mark.filterwarnings("ignore:.pin_memory. argument is set as true but no accelerator")
@pytest.mark.parametrize(("page", "code"), snippets("python"))
def test_python(page, code, workplace):
    torch.manual_seed(0)
    names = {
        "model": vit(),
        "train_dataset": Images(64),
        "eval_dataset": Images(128, seed=1),
        "logits": torch.randn(8, 4, requires_grad=True),
        "embeddings": torch.randn(8, 16, requires_grad=True),
        "labels": torch.arange(8) % 4,
        "criterion": supcontrast,
    }
    if page.stem == "embeddings":  # whose Python reads what its shell command writes
        checkpoint = "google/vit-base-patch16-224-in21k"
        flags = ["--data_dir", "photos/train", "--output", "embeddings.parquet"]
        main(["embed", "--model_name_or_path", checkpoint, *flags])
    exec(compile(code, page.name, "exec"), names)
    if page.stem == "checkpoints":
        assert names["model"].timm_model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.15)


# The snippets leave the device and pinning to the machine, and one without an accelerator warns.
@pytest.mark.filterwarnings("ignore:.pin_memory. argument is set as true but no accelerator")
@pytest.mark.parametrize(("page", "code"), snippets("bash"))
def test_shell(page, code, workplace, capsys):
    for line in code.splitlines():
        command = shlex.split(line, comments=True)
        if command[0] == "clce-hf":
            # `make demo` is run as a program of its own; here, its function is called.
            main(command[1:])
            expected = "embeddings of" if command[1] == "embed" else "accuracy"
            assert expected in capsys.readouterr().out
        else:
            run_program(line, command, workplace)


def run_program(line, command, workplace):
    where = workplace
    if command[0] == "make":
        # With this environment for the one that make sets up. A test run cannot contain
        # itself and benchmarks take minutes: for those, that the recipe can be made.
        command += [f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed"]
        command.append("DEMO_FLAGS=--max_steps 20" if command[1] == "demo" else "--dry-run")
        where = ROOT
    elif command[:3] == ["hf", "jobs", "uv"]:
        command.insert(4, "--dry-run")
        where = ROOT
    elif command[:2] == ["pip", "install"]:
        command = [sys.executable, "-m", "pip", *command[1:]]
        command += ["--dry-run", "--no-deps", "--no-build-isolation", "--quiet"]
        where = ROOT
    done = subprocess.run(
        line if command[0] == "echo" else command,
        shell=command[0] == "echo",
        cwd=where,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    if command[:2] == ["hf", "jobs"]:
        assert "HF_TOKEN=***" in done.stdout
    if command[:2] == ["make", "test"]:
        assert "-m pytest" in done.stdout
    if command[:2] == ["make", "demo"]:
        assert "cross-entropy" in done.stdout


@pytest.mark.filterwarnings("ignore:.pin_memory. argument is set as true but no accelerator")
def test_the_example_of_a_folder_of_images(workplace, monkeypatch, capsys):
    checkpoint = "google/vit-base-patch16-224-in21k"
    script = ROOT / "examples" / "image_folder.py"
    monkeypatch.setattr(sys, "argv", [script.name, "photos", checkpoint, "runs/photos"])
    runpy.run_path(str(script), run_name="__main__")
    assert "eval_accuracy" in capsys.readouterr().out
    assert (workplace / "runs" / "photos" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_example_runs_in_two_processes(workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    script = ROOT / "examples" / "image_folder.py"
    done = launch(str(script), "photos", "google/vit-base-patch16-224-in21k", "runs/photos")
    assert "eval_accuracy" in done.stdout
    assert (workplace / "runs" / "photos" / "model.safetensors").exists()


def test_pages_link_to_files_that_exist():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_name_files_and_tests_that_exist():
    folders = "clce_hf|tests|benchmarks|examples"
    for page in PAGES:
        names = re.findall(rf"`((?:{folders})/[\w/.]+)(?:::(\w+))?`", page.read_text())
        for file, test in names:
            assert (ROOT / file).exists(), f"{page.name} names {file}"
            assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{page.name}: {test}"
