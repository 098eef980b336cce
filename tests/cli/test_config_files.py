"""Config files as editors of any platform write them, and those that cannot be used."""

import json
import re

import pytest
from support.commands import QUICK

from clce_hf.cli.main import main
from clce_hf.cli.parsing import parse

TEXT = "# größe → 猫\r\ntemperature: 0.2\r\nrun_name: straße\r\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.yaml", TEXT.encode()),
        ("run.YML", TEXT.encode("utf-8-sig")),  # as Notepad writes it
        ("run.yaml", TEXT.encode("utf-16")),
        ("run.json", b'{\n\t"temperature": 0.2,\n\t"run_name": "stra\xc3\x9fe"\n}'),
        ("run.json", json.dumps({"temperature": 0.2, "run_name": "straße"}).encode("utf-8-sig")),
    ],
)
def test_any_editor(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content)
    _, _, args = parse([str(file)])
    assert (args.temperature, args.run_name) == (0.2, "straße")


def test_values_have_the_types_of_their_flags(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "{learning_rate: 1e-5, max_steps: '7', use_cpu: 'yes', label_names: labels, "
        "report_to: [none], lr_scheduler_kwargs: {last_epoch: -1}, run_name: 2026-11-26, "
        "save_total_limit: null, head_init: null, dataset_name: 5, drop_path_rate: 0}"
    )
    model, data, args = parse([str(file)])
    assert (args.learning_rate, args.max_steps, args.use_cpu) == (1e-5, 7, True)
    assert (args.label_names, args.report_to) == (["labels"], [])
    assert (args.lr_scheduler_kwargs, args.run_name) == ({"last_epoch": -1}, "2026-11-26")
    assert (args.save_total_limit, args.head_init) == (None, None)
    assert (data.dataset_name, model.drop_path_rate) == ("5", 0.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a", "must map names to values"),
        (b"", "must map names to values"),
        (b"a: [", "cannot be read: .*line 1"),
        (b"stra\xdfe: 1", "cannot be read: .*position 4"),
        (b"\x93\x00\x01", "cannot be read"),
        (b"1: 2\nfoo: 3", "in the config file, 1, foo: there is no setting 1, foo"),
        (b"temperature: warm", "temperature: invalid float value: 'warm'"),
        (b"temperature: null", "temperature: invalid float value: 'None'"),
        (b"learning_rate: [1]", "learning_rate: invalid float"),
        (b"max_steps: 2.5", "max_steps: invalid int value: '2.5'"),
        (b"seed: true", "seed: invalid int"),
        (b"use_cpu: please", "use_cpu: Truthy value expected"),
        (b"variant: mean", "variant: invalid choice: 'mean'"),
        (b"head_init: class_mean", "head_init: invalid choice"),
        (b"max_steps: 0", "--max_steps: got 0, but it must be at least 1, or -1"),
        (b"accelerator_config: {no_such: 1}", "TypeError: .*no_such"),
    ],
)
def test_files_that_cannot_be_used(content, message, tmp_path, capsys):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(SystemExit) as error:
        parse([str(file)])
    assert error.value.code == 2
    usage, line = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: clce-hf train")
    assert re.search(message, line), line


def test_a_config_file_stands_first(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", *QUICK, "run.yaml"])
    assert "unrecognized arguments: run.yaml (one config file is taken" in capsys.readouterr().err
