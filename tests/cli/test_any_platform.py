"""Any locale and terminal, readers of the output that leave, and Ctrl-C."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time

import datasets
import numpy as np
import pytest
from PIL import Image
from support import ROOT, in_ascii
from support.commands import QUICK, train
from support.launching import environment
from support.tiny import vit
from transformers import ViTImageProcessor

from clce_hf.cli.main import main

NAMES = ["Löwe", "猫", "cat", "dog"]


@pytest.fixture
def world(tmp_path):
    """A folder with a model, images of classes from all over the world, and files of settings."""
    vit().save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "model")
    generator = np.random.default_rng(0)
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    for split, n in (("train", 16), ("test", 12)):
        pixels = generator.integers(0, 255, (n, 16, 16, 3), np.uint8)
        rows = {"image": [Image.fromarray(p) for p in pixels], "label": [i % 4 for i in range(n)]}
        dataset = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        (tmp_path / "data").mkdir(exist_ok=True)
        dataset.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    (tmp_path / "run.yaml").write_text("# größe → 猫\nrun_name: straße\n", encoding="utf-8")
    (tmp_path / "methods.yaml").write_text("schärfer →: {temperature: 0.2}", encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_ascii_alone_and_an_interruption(world):
    command = [sys.executable, "-X", "warn_default_encoding", in_ascii.__file__, str(world)]
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    running = subprocess.Popen(
        command,
        env=environment(**ascii_alone),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (world / "long" / "checkpoint-5" / "trainer_state.json").exists():
        assert time.monotonic() < deadline and running.poll() is None, running.communicate()[1]
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    printed, told = running.communicate(timeout=120)

    config = json.loads((world / "run" / "config.json").read_text())
    assert set(config["label2id"]) == set(NAMES)
    assert "does not know: L\\xf6we, \\u732b" in printed and "sch\\xe4rfer \\u2192" in printed
    report = (world / "compared" / "report.html").read_text(encoding="utf-8")
    assert "schärfer →" in report and "Löwe" in report
    assert str(ROOT / "clce_hf") not in "".join(
        line for line in told.splitlines() if "EncodingWarning" in line
    )

    assert running.returncode == 130
    assert "Traceback" not in told
    assert "clce-hf: KeyboardInterrupt while training, after step " in told
    assert f"the last checkpoint is {world / 'long' / 'checkpoint-'}" in told


def test_every_text_file_has_an_encoding():
    for file in (ROOT / "clce_hf").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            call = ast.unparse(node)
            opens = re.match(r"(.*\.)?(read_text|write_text|open)\(", ast.unparse(node.func) + "(")
            of_bytes = call.startswith("os.open(") or re.search(r"""['"][rwa]\+?b""", call)
            assert not opens or of_bytes or "encoding=" in call, f"{file}:{node.lineno}"


@pytest.mark.parametrize(
    "argv",
    [["--help"], ["train", *QUICK, "--output_dir", "run"]],
    ids=["usage", "training"],
)
def test_a_reader_that_leaves(argv, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(SystemExit) as error:
            main(argv)
    assert error.value.code == 141
    assert "Traceback" not in capfd.readouterr().err


def test_what_was_done_is_said_before_a_traceback(folder, checkpoint, tmp_path, capsys):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text("{")
    with pytest.raises(ValueError, match="Can't find a valid checkpoint"):
        train(folder, checkpoint, tmp_path, "--resume_from_checkpoint", "true")
    assert "clce-hf: ValueError while starting to train\n" in capsys.readouterr().err
