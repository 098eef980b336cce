"""Several losses compared, through the command line."""

import json
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch
from support.launching import environment, launch
from support.tiny import vit
from transformers import ViTImageProcessor

from clce_hf.cli.main import main
from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.record import Run

pytestmark = pytest.mark.early

QUICK = ["--use_cpu", "true", "--disable_tqdm", "true", "--max_steps", "3", "--num_seeds", "2"]
QUICK += ["--max_eval_samples", "100"]


def compare(output, *flags):
    main(["compare", "--output_dir", str(output), *QUICK, *flags])


def results(output):
    return json.loads((output / "results.json").read_text())


def logits(output, method):
    """Logits of each run of a method, by its settings."""
    runs = [Run.load(file.parent) for file in output.glob("cells/*/record.json")]
    return {
        (run.seed, run.shots, run.batch_size): run.predictions.logits
        for run in runs
        if run.method == method
    }


def test_losses_are_compared_on_digits(tmp_path, capsys):
    compare(tmp_path, "--methods", "ce,clce", "--shots", "8,16", "--batch_sizes", "8,16")
    runs = results(tmp_path)
    assert len(runs) == 2 * 2 * 2 * 2
    assert {(run["shots"], run["batch_size"]) for run in runs} == {
        (shots, size) for shots in (8, 16) for size in (8, 16)
    }
    printed = capsys.readouterr().out
    assert printed.count("Trained on 8 images per class, batch size 16") == 1
    assert (tmp_path / "report.html").read_text().count("Trained on") >= 4
    group = [run for run in runs if (run["shots"], run["batch_size"]) == (16, 8)]
    accuracies = {
        name: [100 * run["metrics"]["accuracy"] for run in group if run["method"] == name]
        for name in ("CE", "CLCE")
    }
    table = printed.split("Trained on 16 images per class, batch size 8")[1].split("\n\n")[0]
    row = next(line for line in table.splitlines() if line.strip().startswith("CLCE "))
    assert f"{statistics.mean(accuracies['CLCE']):.2f} ± " in row
    difference = paired_difference(accuracies["CLCE"], accuracies["CE"])
    assert f"{difference.mean:+.2f} ± {difference.interval:.2f}" in row


def test_methods_of_a_seed_start_alike_and_see_the_same(tmp_path):
    again = tmp_path / "again.yaml"
    again.write_text("CE again: {contrastive_weight: 0}\nCLCE weak: {contrastive_weight: 1e-6}")
    compare(tmp_path / "run", "--methods", "ce", "--settings", str(again))
    plain, twin = logits(tmp_path / "run", "CE"), logits(tmp_path / "run", "CE again")
    weak = logits(tmp_path / "run", "CLCE weak")
    assert plain.keys() == twin.keys() == weak.keys() and len(plain) == 2
    for key, values in plain.items():
        assert torch.equal(values, twin[key])
        torch.testing.assert_close(values, weak[key], atol=1e-2, rtol=0)
    first, second = plain.values()
    assert (first - second).abs().max() > 0.1  # another seed is another start


def test_every_method_has_the_start_of_a_new_head(folder, tmp_path):
    vit(num_labels=7).save_pretrained(tmp_path / "seven")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "seven")
    cold = tmp_path / "cold.yaml"
    cold.write_text("cold: {head_init: null}\nasked: {head_init: class_means, variant: out}")
    compare(
        tmp_path / "run",
        *("--train_dir", str(folder / "train"), "--validation_dir", str(folder / "validation")),
        *("--model_name_or_path", str(tmp_path / "seven"), "--ignore_mismatched_sizes"),
        *("--methods", "ce,clce", "--settings", str(cold), "--learning_rate", "0"),
    )
    ce, clce, asked = (logits(tmp_path / "run", name) for name in ("CE", "CLCE", "asked"))
    for key, values in logits(tmp_path / "run", "cold").items():
        assert torch.equal(ce[key], clce[key]) and torch.equal(ce[key], asked[key])
        assert not torch.allclose(ce[key], values)
    accuracies = {run["method"]: run["metrics"]["accuracy"] for run in results(tmp_path / "run")}
    assert accuracies["CE"] > 0.9 > accuracies["cold"]


def test_a_method_that_diverges_is_named_and_what_is_finished_stays(tmp_path):
    wild = tmp_path / "wild.yaml"
    wild.write_text("wild: {learning_rate: 1e30, max_steps: 1, lr_scheduler_type: constant}")
    flags = ("--methods", "ce", "--num_seeds", "1")
    with pytest.raises(SystemExit, match=r"wild, seed 42 diverged: .* Lower its learning_rate"):
        compare(tmp_path / "run", *flags, "--settings", str(wild))
    cells = [file.parent.name for file in (tmp_path / "run").glob("cells/*/record.json")]
    assert len(cells) == 1
    compare(tmp_path / "run", *flags)
    assert [run["method"] for run in results(tmp_path / "run")] == ["CE"]


def test_a_method_has_no_field_that_a_comparison_does_not_heed(tmp_path):
    methods = tmp_path / "methods.yaml"
    methods.write_text("calibrated: {calibrate: true}")
    with pytest.raises(SystemExit, match=r"calibrated: --calibrate: compare .* leave it out"):
        compare(tmp_path / "run", "--settings", str(methods))


def test_a_grid_at_one_seed_has_no_intervals(tmp_path, capsys):
    compare(
        tmp_path,
        *("--methods", "ce,clce", "--temperatures", "0.1,0.5", "--contrastive_weights", "0.3"),
        *("--num_seeds", "1", "--seed", "7"),
    )
    assert {(run["method"], run["seed"]) for run in results(tmp_path)} == {
        ("CE", 7),
        ("CLCE, contrastive_weight 0.3, temperature 0.1", 7),
        ("CLCE, contrastive_weight 0.3, temperature 0.5", 7),
    }
    printed = capsys.readouterr().out
    assert "of 1" in printed
    assert "± nan" not in printed + (tmp_path / "report.html").read_text()
    assert all(0 <= run["metrics"]["map_at_r"] <= 1 for run in results(tmp_path))
    times = [run["metrics"]["seconds_per_step"] for run in results(tmp_path)]
    assert min(times) > 0


@pytest.mark.slow
def test_with_and_without_logit_adjustment_ranked_by_another_metric(tmp_path, capsys):
    methods = tmp_path / "methods.yaml"
    methods.write_text("CE adjusted: {contrastive_weight: 0, logit_adjustment: 9}")
    flags = ("--methods", "ce", "--settings", str(methods), "--num_seeds", "1")
    compare(tmp_path / "run", *flags, "--rank_by", "balanced_accuracy")
    plain, adjusted = (logits(tmp_path / "run", name) for name in ("CE", "CE adjusted"))
    assert plain.keys() == adjusted.keys()
    assert not any(torch.allclose(plain[key], adjusted[key]) for key in plain)
    balanced = {
        run["method"]: run["metrics"]["balanced_accuracy"] for run in results(tmp_path / "run")
    }
    best_first = sorted(balanced, key=balanced.get, reverse=True)
    header, *rows = capsys.readouterr().out.split("Trained on")[1].splitlines()[1:4]
    assert header.split("  ")[1].strip() == "" and "balanced accuracy, %  difference" in header
    for name, row in zip(best_first, rows, strict=True):
        assert row.startswith(f"  {name} ") and f" {100 * balanced[name]:.2f} " in row
    # Ranked anew without training; the report has a table of the classes.
    compare(tmp_path / "run", *flags, "--rank_by", "calibration_error")
    printed = capsys.readouterr().out
    assert ": accuracy" not in printed and "  calibration error  difference to CE" in printed
    assert "Accuracy by class" in (tmp_path / "run" / "report.html").read_text()


def test_five_classes_are_not_ranked_by_their_top_5(folder, checkpoint, tmp_path):
    data = ["--train_dir", str(folder / "train"), "--validation_dir", str(folder / "validation")]
    data += ["--model_name_or_path", checkpoint]
    with pytest.raises(SystemExit, match="--rank_by: top_5_accuracy is measured of more than 5"):
        compare(tmp_path / "run", *data, "--rank_by", "top_5_accuracy")


@pytest.mark.slow
def test_a_killed_comparison_resumes(tmp_path):
    flags = ["--methods", "ce,clce", "--output_dir", str(tmp_path), *QUICK]
    command = [sys.executable, "-m", "clce_hf", "compare", *flags]
    running = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (done := list(tmp_path.glob("cells/*/record.json"))):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert len(done) < 4 and not (tmp_path / "results.json").exists()
    before = {file: file.stat().st_mtime_ns for file in done}
    compare(tmp_path, "--methods", "ce,clce")
    assert len(results(tmp_path)) == 4
    assert all(file.stat().st_mtime_ns == changed for file, changed in before.items())
    # More of the same is added to it.
    compare(tmp_path, "--methods", "ce,clce", "--num_seeds", "3")
    assert len(results(tmp_path)) == 6
    assert all(file.stat().st_mtime_ns == changed for file, changed in before.items())


@pytest.mark.slow
def test_processes_share_the_cells(tmp_path):
    flags = ["--methods", "ce,clce", "--output_dir", str(tmp_path), *QUICK]
    done = launch("-m", "clce_hf", "compare", *flags, "--num_seeds", "4")
    assert len(results(tmp_path)) == 8
    trained = [line for line in done.stdout.splitlines() if ": accuracy" in line]
    assert len(trained) == len(set(trained)) == 8
    # Each trained alone: the same as in one process.
    compare(tmp_path / "alone", "--methods", "clce", "--num_seeds", "1")
    (key, alone), *_ = logits(tmp_path / "alone", "CLCE").items()
    torch.testing.assert_close(logits(tmp_path, "CLCE")[key], alone)


def test_other_settings_are_refused(tmp_path):
    compare(tmp_path, "--methods", "ce", "--num_seeds", "1", "--hub_token", "hf_ann")
    assert "hf_ann" not in (tmp_path / "settings.json").read_text()
    with pytest.raises(SystemExit, match=r"learning_rate was 0.001, now 0.01\..*output_dir"):
        compare(tmp_path, "--methods", "ce", "--num_seeds", "1", "--learning_rate", "0.01")
    with pytest.raises(SystemExit, match=r"settings: save_strategy was no, now epoch\. Name"):
        compare(tmp_path, "--methods", "ce", "--num_seeds", "1", "--save_strategy", "epoch")


def test_a_comparison_of_an_older_version_goes_on(tmp_path):
    flags = ("--methods", "ce", "--num_seeds", "1")
    as_then = (*flags, "--memory_size", "0", "--head_init", "none")
    compare(tmp_path, *as_then)
    file = tmp_path / "settings.json"
    kept = json.loads(file.read_text())
    for name in ("memory_size", "head_init", "logit_adjustment", "calibrate"):
        del kept[name]
    file.write_text(json.dumps(kept))
    (record,) = tmp_path.glob("cells/*/record.json")
    facts = json.loads(record.read_text())
    del facts["metrics"]["balanced_accuracy"]
    record.write_text(json.dumps(facts))
    with pytest.raises(SystemExit, match=r"memory_size was 0, now 1024; head_init was none, now"):
        compare(tmp_path, *flags)
    compare(tmp_path, *as_then, "--methods", "ce,clce")
    assert [run["method"] for run in results(tmp_path)] == ["CE", "CLCE"]
    with pytest.raises(SystemExit, match=r"settings: logit_adjustment was 0.0, now 1.0\. Name an"):
        compare(tmp_path, *as_then, "--logit_adjustment", "1")
    del kept["eval_strategy"]
    file.write_text(json.dumps(kept))
    with pytest.raises(
        SystemExit, match=r"did not keep eval_strategy, so its.*Name another output"
    ):
        compare(tmp_path, *as_then)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "ce,bce"], "--methods: got bce, but there are ce, supcon, clce"),
        (["--shots", "1,two"], "--shots: got 1,two, but it takes numbers"),
        (["--shots", "5000"], "5000 shots need 5000 training images of each class, but class"),
        (["--num_seeds", "0"], "nothing to compare"),
        (["--settings", "none.yaml"], "--settings: none.yaml cannot be read"),
        (["--settings", "wrong.yaml"], "--settings: mine has no field tau"),
        (["--batch_sizes", "16,6", "--samples_per_class", "4"], "CE: samples_per_class"),
        (["--temperatures", "0.1,0"], r"CE \+ SupCon, temperature 0: temperature must be positive"),
        (["--methods", "ce", "--temperatures", "0.1"], "none of --methods has one"),
    ],
)
def test_bad_comparisons_are_refused(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("mine: {tau: 0.1}")
    with pytest.raises(SystemExit, match=message):
        compare(tmp_path / "run", *flags)
    assert not list(tmp_path.glob("run/cells/*/record.json"))
