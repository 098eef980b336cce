"""The files of examples/accelerate start what they say."""

import json
import math
import socket
import subprocess
import sys

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from support.launching import CONFIGS, environment, launch
from transformers import pipeline

from clce_hf.cli.main import main
from clce_hf.data.load import load_benchmark

pytestmark = pytest.mark.early

FILES = sorted(CONFIGS.glob("*.yaml"))
QUICK = ["--use_cpu", "--max_steps", "2", "--disable_tqdm", "true"]


def test_every_way_to_launch_has_a_file():
    names = {file.stem for file in FILES}
    assert names == {"cpu", "one_gpu", "multi_gpu", "fsdp2", "deepspeed_zero2", "two_nodes"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_accelerate_reads_every_setting(file):
    settings = yaml.safe_load(file.read_text())
    cluster = load_config_from_file(str(file))
    assert isinstance(cluster, ClusterConfig)
    assert cluster.distributed_type == settings["distributed_type"]
    # The launcher passes over settings of an engine that it does not know.
    known = {action.dest for action in launch_command_parser()._actions}
    engine = {**settings.get("fsdp_config", {}), **settings.get("deepspeed_config", {})}
    assert set(engine) <= known


def test_the_command_line_trains_in_two_processes(tmp_path):
    flags = ["--output_dir", str(tmp_path), *QUICK, "--max_steps", "40", "--calibrate", "true"]
    finished = launch("-m", "clce_hf", "train", *flags, joined=False)
    assert finished.stdout.count("accuracy  ") == 1
    assert finished.stdout.count("temperature  ") == 1
    assert "training time" in finished.stdout
    assert pipeline("image-classification", model=str(tmp_path), device="cpu")
    # Both processes take 64 images a step.
    results = json.loads((tmp_path / "all_results.json").read_text())
    steps_in_epoch = math.ceil(len(load_benchmark("digits")["train"]) / 128)
    assert results["epoch"] == pytest.approx(40 / steps_in_epoch)
    # They shared the images that the temperature was fitted on: on all of them, it is the best.
    assert results["calibration_images"] == 500
    only = ["--model_name_or_path", str(tmp_path), "--do_train", "false", "--calibrate", "true"]
    main(["train", *only, "--output_dir", str(tmp_path / "again"), *QUICK])
    again = json.loads((tmp_path / "again" / "calibration_results.json").read_text())
    assert again["rejected_temperature"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_two_machines_train_together(tmp_path):
    options = ["--config_file", str(CONFIGS / "two_nodes.yaml"), "--num_processes", "2"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    options += ["--main_process_ip", "127.0.0.1", "--main_process_port", port]
    script = ["-m", "clce_hf", "train", "--output_dir", str(tmp_path), *QUICK]
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", *options]
    machines = [
        subprocess.Popen(
            [*launcher, "--machine_rank", str(rank), *script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        for rank in range(2)
    ]
    printed = [machine.communicate(timeout=300) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], printed
    assert "training time" in printed[0][0]
    assert "training time" not in printed[1][0]


@pytest.mark.slow
def test_processes_that_do_not_find_each_other_are_refused(tmp_path):
    without_use_cpu = [word for word in QUICK if word != "--use_cpu"]
    finished = launch(
        *("-m", "clce_hf", "train", "--output_dir", str(tmp_path), *without_use_cpu),
        joined=False,
        check=False,
    )
    assert finished.returncode != 0
    assert "started 2 processes, but each of them trains alone: on CPUs, set" in finished.stderr
