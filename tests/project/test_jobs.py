"""The script for jobs of the Hub goes from a data set and a model there to a pushed model."""

import json
import re
import runpy
import sys
import tomllib

import pytest
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT
from support.pushing import repository

SCRIPT = ROOT / "examples" / "jobs" / "finetune.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
JOB = {"--dataset": "bob/animals", "--model": "bob/base", "--repo": "ann/animals-vit"}
TOKEN = "hf_ann"


@pytest.fixture
def run(published, tmp_path, monkeypatch):
    """Run the script in an empty folder, with a user's token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def run_script(*more, **changed):
        job = JOB | {f"--{name}": value for name, value in changed.items()}
        flags = [part for flag in job.items() for part in flag]
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *flags, *more])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run_script


def test_its_requirements_are_those_of_the_package():
    # As PEP 723 reads them.
    [block] = re.findall(r"(?m)^# /// script$\s((?:^#(?: .*)?$\s)+)^# ///$", SCRIPT.read_text())
    needs = tomllib.loads(re.sub(r"(?m)^# ?", "", block))
    assert needs["requires-python"] == PROJECT["requires-python"]
    (needed,) = map(Requirement, needs["dependencies"])
    assert canonicalize_name(needed.name) == canonicalize_name(PROJECT["name"])
    assert needed.extras < PROJECT["optional-dependencies"].keys()
    assert needed.specifier.contains(PROJECT["version"])


@pytest.mark.parametrize("splits", ["train and test", "train alone"])
def test_a_job_pushes_model_card_and_report(run, published, tmp_path, capfd, splits):
    stored = published.repositories["dataset", "bob/animals"].files
    if splits == "train alone":
        del stored["data/test-00000-of-00001.parquet"]
    flags = ["--use_cpu", "true", "--num_train_epochs", "1", "--train_val_split", "0.3"]
    run(*flags, "--cache_dir", str(tmp_path / "cache"))
    pushed = repository(published, JOB["--repo"]).files
    assert {"model.safetensors", "report/report.html", "embeddings.png"} <= pushed.keys()
    card = ModelCard(pushed["README.md"].decode())
    assert card.data.datasets == ["bob/animals"] and card.data.base_model == "bob/base"
    # The report is of the same images.
    held_out = {"train and test": 8, "train alone": 5}[splits]
    assert f"{held_out} images" in pushed["report/report.html"].decode()
    measured = json.loads(pushed["report/evaluation.json"])["metrics"]
    (result,) = [result for result in card.data.eval_results if result.metric_type == "accuracy"]
    assert measured["accuracy"] == pytest.approx(result.metric_value)
    printed = "".join(capfd.readouterr())
    assert "ann/animals-vit on the Hub has the model" in printed and TOKEN not in printed
    for name, content in pushed.items():
        if not name.endswith((".png", ".safetensors", ".bin")):
            assert not re.search(f"{TOKEN}|{tmp_path}|{ROOT}", content.decode()), name


@pytest.mark.parametrize(
    ("changed", "token", "told"),
    [
        ({}, None, "--secrets HF_TOKEN"),
        ({}, "none", "401"),
        ({"dataset": "bob/nothing"}, TOKEN, "'bob/nothing' could not be loaded"),
        ({"model": "bob/nothing"}, TOKEN, "bob/nothing"),
        ({"repo": "bob/animals-vit"}, TOKEN, "403"),
    ],
)
def test_what_is_missing_is_said_in_one_line(run, published, monkeypatch, changed, token, told):
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(SystemExit) as stopped:
        run("--use_cpu", "true", **changed)
    assert told in stopped.value.code and "\n" not in stopped.value.code
    assert TOKEN not in stopped.value.code
    assert published.repositories.keys() == {("model", "bob/base"), ("dataset", "bob/animals")}


def test_a_repository_without_its_owner_is_refused(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(repo="animals-vit")
    assert "--repo: got animals-vit, but it takes USER/MODEL" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--output_dir=x", "--push-to-hub", "--hub_model_id"])
def test_a_flag_that_the_script_sets_is_refused(run, capsys, flag):
    with pytest.raises(SystemExit, match="2"):
        run(flag, "false")
    assert f"{flag}: the script sets it" in capsys.readouterr().err


def test_a_report_that_is_not_uploaded_is_said_in_one_line(run, published, tmp_path):
    commits = 1  # of the training
    published.fail("POST", "/commit/", 0, after=commits)  # a dropped connection
    with pytest.raises(SystemExit, match="its report is not") as stopped:
        run("--use_cpu", "true", "--max_steps", "1", "--save_strategy", "no")
    assert "\n" not in stopped.value.code
    pushed = repository(published, JOB["--repo"]).files
    assert {"model.safetensors", "README.md"} <= pushed.keys()
    assert not any(name.startswith("report/") for name in pushed)
    assert (tmp_path / "runs" / "animals-vit" / "report" / "report.html").is_file()
