"""Several losses compared, through the command line."""

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from support.launching import environment, launch

from clce_hf.cli.main import main
from clce_hf.comparison.grid import METHODS, grid, vary
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.evaluation.paired import paired_difference
from clce_hf.evaluation.record import Record

QUICK = ["--use_cpu", "true", "--disable_tqdm", "true", "--max_steps", "3", "--num_seeds", "2"]
QUICK += ["--max_eval_samples", "100"]


def compare(output, *flags):
    main(["compare", "--output_dir", str(output), *QUICK, *flags])


def results(output):
    return json.loads((output / "results.json").read_text())


def records(output, method):
    found = [Record.load(file.parent) for file in output.glob("cells/*/record.json")]
    return {
        (record.seed, record.shots, record.batch_size): record
        for record in found
        if record.method == method
    }


def test_losses_are_compared_on_digits(tmp_path, capsys):
    compare(tmp_path, "--methods", "ce,clce", "--shots", "8,16", "--batch_sizes", "8,16")
    found = results(tmp_path)
    assert len(found) == 2 * 2 * 2 * 2
    assert {(each["shots"], each["batch_size"]) for each in found} == {
        (shots, size) for shots in (8, 16) for size in (8, 16)
    }
    printed = capsys.readouterr().out
    assert printed.count("Trained on 8 images a class, batch size 16") == 1
    assert (tmp_path / "report.html").read_text().count("Trained on") >= 4
    group = [each for each in found if (each["shots"], each["batch_size"]) == (16, 8)]
    accuracies = {
        name: [100 * each["metrics"]["accuracy"] for each in group if each["method"] == name]
        for name in ("CE", "CLCE")
    }
    table = printed.split("Trained on 16 images a class, batch size 8")[1].split("\n\n")[0]
    row = next(line for line in table.splitlines() if line.strip().startswith("CLCE "))
    assert f"{statistics.mean(accuracies['CLCE']):.2f} ± " in row
    difference = paired_difference(accuracies["CLCE"], accuracies["CE"])
    assert f"{difference.mean:+.2f} ± {difference.interval:.2f}" in row


def test_methods_of_a_seed_start_alike_and_see_the_same(tmp_path):
    again = tmp_path / "again.yaml"
    again.write_text("CE again: {contrastive_weight: 0}\nCLCE weak: {contrastive_weight: 1e-6}")
    compare(tmp_path / "run", "--methods", "ce", "--settings", str(again))
    plain, twin = records(tmp_path / "run", "CE"), records(tmp_path / "run", "CE again")
    weak = records(tmp_path / "run", "CLCE weak")
    assert plain.keys() == twin.keys() == weak.keys() and len(plain) == 2
    for key, record in plain.items():
        assert torch.equal(record.logits, twin[key].logits)
        torch.testing.assert_close(record.logits, weak[key].logits, atol=1e-2, rtol=0)
    first, second = plain.values()
    assert (first.logits - second.logits).abs().max() > 0.1  # another seed is another start


def test_grids_vary_what_is_contrasted(tmp_path):
    compare(
        tmp_path,
        *("--methods", "ce,clce", "--temperatures", "0.1,0.5", "--contrastive_weights", "0.3"),
        *("--num_seeds", "1", "--seed", "7"),
    )
    assert {(each["method"], each["seed"]) for each in results(tmp_path)} == {
        ("CE", 7),
        ("CLCE, contrastive_weight 0.3, temperature 0.1", 7),
        ("CLCE, contrastive_weight 0.3, temperature 0.5", 7),
    }


def test_a_killed_comparison_goes_on_where_it_stopped(tmp_path):
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
    told = [line for line in done.stdout.splitlines() if ": accuracy" in line]
    assert len(told) == len(set(told)) == 8
    # Each trained alone: the same as in one process.
    compare(tmp_path / "alone", "--methods", "clce", "--num_seeds", "1")
    (key, alone), *_ = records(tmp_path / "alone", "CLCE").items()
    torch.testing.assert_close(records(tmp_path, "CLCE")[key].logits, alone.logits)


def test_other_settings_are_refused(tmp_path):
    compare(tmp_path, "--methods", "ce", "--num_seeds", "1", "--hub_token", "hf_ann")
    assert "hf_ann" not in (tmp_path / "settings.json").read_text()
    with pytest.raises(SystemExit, match=r"learning_rate was 0.001, now 0.01\..*--output_dir"):
        compare(tmp_path, "--methods", "ce", "--num_seeds", "1", "--learning_rate", "0.01")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--methods", "ce,bce"], "--methods bce: there are ce, supcon, clce"),
        (["--shots", "1,two"], "--shots 1,two: numbers"),
        (["--shots", "5000"], "5000 shots need 5000 training images of each class, but class"),
        (["--num_seeds", "0"], "nothing to compare"),
        (["--settings", "none.yaml"], "--settings: the file cannot be read"),
        (["--settings", "wrong.yaml"], "--settings: mine has no field tau"),
        (["--batch_sizes", "16,6"], "CE: samples_per_class"),
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


def test_one_seed_has_no_interval(tmp_path, capsys):
    compare(tmp_path, "--methods", "ce,clce", "--num_seeds", "1")
    printed = capsys.readouterr().out
    assert "of 1" in printed
    assert "± nan" not in printed + (tmp_path / "report.html").read_text()
    times = [each["metrics"]["seconds_per_step"] for each in results(tmp_path)]
    assert min(times) > 0 and max(times) < 60


# ---- the parts ----


def test_every_cell_has_a_name_of_its_own():
    methods = vary(list(METHODS.values()), temperature=[0.1, 0.5])
    cells = grid(methods, range(3), [None, 5], [16, 32])
    assert len({cell.name for cell in cells}) == len(cells) == (1 + 2 * 4) * 3 * 2 * 2
    assert [cell.name for cell in cells] == [
        cell.name for cell in grid(methods, range(3), [None, 5], [16, 32])
    ]


@given(st.lists(st.integers(3, 9), min_size=2, max_size=5), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_low_shot_images_are_so_many_of_each_class(sizes, seed):
    labels = torch.cat([torch.full((size,), 3 * i) for i, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    few, more = low_shot_rows(labels, 2, seed), low_shot_rows(labels, 3, seed)
    assert set(few) <= set(more) and more == sorted(more)
    assert labels[few].unique(return_counts=True)[1].tolist() == [2] * len(sizes)
    assert labels[more].unique(return_counts=True)[1].tolist() == [3] * len(sizes)


def test_a_class_too_small_for_the_shots_is_named():
    labels = torch.tensor([0, 0, 0, 1])
    with pytest.raises(ValueError, match=r"2 shots need 2 .*but class bee has 1"):
        low_shot_rows(labels, 2, 0, ["ant", "bee"])
    with pytest.raises(ValueError, match="but class 1 has 1"):
        low_shot_rows(labels, 2, 0)


def test_a_paired_difference_is_that_of_scipy():
    first, second = [3.0, 4.5, 2.0, 5.0, 4.0], [2.0, 4.0, 2.5, 3.0, 4.0]
    found = paired_difference(first, second)
    low, high = ttest_rel(first, second).confidence_interval(0.95)
    assert found.mean - found.interval == pytest.approx(low)
    assert found.mean + found.interval == pytest.approx(high)
    assert (found.wins, found.pairs) == (3, 5)
    assert math.isnan(paired_difference([1.0], [2.0]).interval)
