"""Flags and config files, and what is said of those that do not fit."""

import dataclasses
import json
import re

import pytest
import yaml
from support import ROOT
from support.commands import QUICK, train
from support.tiny import vit
from support.upstream_flags import UPSTREAM
from transformers import TrainingArguments, ViTImageProcessor

from clce_hf import CLCEConfig
from clce_hf.cli.arguments import ModelArguments, TrainArguments
from clce_hf.cli.compare import CompareArguments
from clce_hf.cli.data_arguments import DataArguments, LabeledImagesArguments
from clce_hf.cli.embed import EmbedArguments
from clce_hf.cli.errors import FLAGS, with_flag
from clce_hf.cli.main import main
from clce_hf.cli.parsing import parse
from clce_hf.errors import ArgumentError

NO_MODEL = ["--model_name_or_path", "no/such-model"]


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out.startswith("clce-hf 0.")


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_config_file_and_flags_that_win(tmp_path, suffix):
    settings = {"learning_rate": 3e-4, "temperature": 0.2, "bf16": True, "use_cpu": True}
    file = tmp_path / f"run.{suffix}"
    file.write_text(json.dumps(settings) if suffix == "json" else yaml.safe_dump(settings))
    _, _, args = parse([str(file), "--temperature", "0.7"])
    assert (args.learning_rate, args.temperature, args.bf16) == (3e-4, 0.7, True)
    assert args.num_train_epochs == 30  # of the digits, since no data set is named


def test_an_unknown_setting_in_a_config_file(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("learning_rat: 1.0")
    with pytest.raises(SystemExit):
        parse([str(tmp_path / "run.yaml")])
    message = capsys.readouterr().err
    unknown = "in the config file, learning_rat: there is no setting learning_rat"
    assert f"{unknown} (did you mean --learning_ra" in message
    assert len(message.splitlines()) < 5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--no_such_flag", "1"], "unrecognized arguments: --no_such_flag"),
        (["train", "--sample_per_class=4"], "did you mean --samples_per_class?"),
        (["train", "--temp", "0.1"], "unrecognized arguments: --temp 0.1"),
        (["train", "--temperature", "-1"], "temperature must be positive"),
        (["train", "--variant", "mean"], "--variant"),
        (["train", "--samples_per_class", "5"], "samples_per_class=5 must divide"),
        (
            ["train", "--train_val_split", "2"],
            "--train_val_split: got 2.0, but it must lie in (0, 1)",
        ),
        (["train", "--validation_dir", "x"], "validation_dir needs train_dir"),
        (
            ["train", "--dataset_name", "x", "--train_dir", "y"],
            "train_dir, or dataset_name or benchmark, not both",
        ),
        (
            ["train", "--train_dir", "y", "--dataset_revision", "z", *NO_MODEL],
            "A folder of images is not on the Hub: leave out dataset_name, dataset_config_name",
        ),
        (["train", "nothing.yaml"], "the config file nothing.yaml cannot be read"),
        (["tarin"], "there is no command 'tarin'"),
        (["train", "--dataset_name", "no/such-data"], "--model_name_or_path: a data set needs"),
        (["train", "--dataset_name", "no/such-data", *NO_MODEL], "no/such-data"),
        (["train", "--dataset_name", "no/such-data", *NO_MODEL], "hf auth login"),
        (["train", "--train_dir", "no/folder", *NO_MODEL], "no folder 'no/folder'"),
        (["train", "--train_dir", ".", "--model_type", "bert"], "--model_type: got bert, but"),
        (["train", "--resume_from_checkpoint", "none"], "no folder 'none'"),
        (["train", "--resume_from_checkpoint", "true"], "there is no checkpoint in"),
        (["train", "--max_train_samples", "0"], "--max_train_samples: got 0, but it"),
        (["train", "--mixup_alpha", "-1"], "mixup_alpha must be finite and not negative, got -1"),
        (["demo", "--do_eval", "false"], "demo trains and evaluates"),
        (["train", "--model_name_or_path", "no/such-model"], "no/such-model"),
        (["train", "--model_name_or_path", "no/such-model"], "hf auth login"),
        (["train", "--model_type", "vit"], "--model_type: it needs an --image_processor_name"),
    ],
)
def test_a_bad_command_says_what_is_wrong_and_leaves(argv, message, tmp_path, capsys):
    if argv[0] == "train":
        argv = [*argv, "--output_dir", str(tmp_path), *QUICK]
    with pytest.raises(SystemExit) as error:
        main(argv)
    assert error.value.code != 0
    assert message in f"{error.value.code} {capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image_column_name", "photo"], "--image_column_name: .* 'photo'.*image, label"),
        (["--label_column_name", "species"], "--label_column_name: .* 'species'.*image, label"),
        (["--model_name_or_path", ""], "--model_name_or_path: .*google/vit"),
        (
            ["--samples_per_class", "8", "--memory_size", "0"],
            "samples_per_class=8 fills the batch of 8",
        ),
        (["--drop_path_rate", "0.1"], "--drop_path_rate: vit has no drop path"),
        (["--image_processor_name", "no/such"], "--image_processor_name: .*of 'no/such'"),
    ],
)
def test_flags_that_do_not_fit_the_data(folder, checkpoint, tmp_path, flags, message):
    with pytest.raises(SystemExit) as error:
        train(folder, checkpoint, tmp_path, *flags)
    assert re.search(message, str(error.value.code))


def test_a_share_that_cannot_be_held_out_names_its_flag(folder, checkpoint, tmp_path):
    flags = ["--train_dir", str(folder / "train"), "--model_name_or_path", checkpoint]
    flags += ["--train_val_split", "0.01", "--output_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"--train_val_split: .*0\.01"):
        main(["train", *flags, *QUICK])


def test_every_argument_that_an_error_blames_has_a_flag():
    kinds = (
        ModelArguments,
        DataArguments,
        LabeledImagesArguments,
        TrainArguments,
        CompareArguments,
        EmbedArguments,
    )
    flags = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    files = (ROOT / "clce_hf").rglob("*.py")
    blamed = set(
        re.findall(r'ArgumentError\(\s*"(\w+)"', "".join(file.read_text() for file in files))
    )
    assert len(blamed) >= 7
    assert {FLAGS.get(argument, argument) for argument in blamed} <= flags
    assert with_flag(ArgumentError("folder", "It is empty.")) == "--benchmark_dir: It is empty."
    assert with_flag(ValueError("It is empty.")) == "It is empty."


def test_the_flags_are_those_of_the_example_of_transformers(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    taken = set(re.findall(r"--(\w+)", capsys.readouterr().out))
    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    of_clce = {field.name for field in dataclasses.fields(CLCEConfig) if field.init} - fields
    assert len(fields) > 90 and len(of_clce) == 12
    assert taken >= UPSTREAM.keys() | fields | of_clce


def test_every_flag_of_the_example_has_an_effect(folder, checkpoint, tmp_path):
    """The flags that other tests do not give, all at once."""
    vit(num_labels=7).save_pretrained(tmp_path / "seven")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "processor")
    train(
        *(folder, str(tmp_path / "seven"), tmp_path / "run"),
        *("--config_name", checkpoint, "--image_processor_name", str(tmp_path / "processor")),
        *("--cache_dir", str(tmp_path / "cache"), "--model_revision", "main"),
        *("--ignore_mismatched_sizes", "--trust_remote_code", "false", "--token", "hf_ann"),
        *("--max_train_samples", "16", "--max_eval_samples", "5"),
        *("--image_column_name", "image", "--label_column_name", "label"),
    )
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    assert results["eval_accuracy"] * 5 == pytest.approx(round(results["eval_accuracy"] * 5))
    assert (tmp_path / "run" / "preprocessor_config.json").is_file()
