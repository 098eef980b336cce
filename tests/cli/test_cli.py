import dataclasses
import json
import re
import runpy
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from support import ROOT
from support.tiny import CLASSES, vit
from support.tiny_models import save_timm
from transformers import TrainingArguments, ViTImageProcessor, pipeline

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.cli.arguments import ModelArguments, TrainArguments
from clce_hf.cli.data_arguments import DataArguments, LabeledImagesArguments
from clce_hf.cli.errors import FLAGS, with_flag
from clce_hf.cli.main import main
from clce_hf.cli.parsing import parse
from clce_hf.data.load import load_benchmark
from clce_hf.errors import ArgumentError

QUICK = ["--max_steps", "2", "--use_cpu", "--disable_tqdm", "true"]
NO_MODEL = ["--model_name_or_path", "no/such-model"]
SMALL = ["--per_device_train_batch_size", "8", *QUICK]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoint")
    vit().save_pretrained(root)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(root)
    return str(root)


def train(folder, checkpoint, output, *flags):
    main(
        [
            "train",
            *("--train_dir", str(folder / "train")),
            *("--validation_dir", str(folder / "validation")),
            *("--model_name_or_path", checkpoint),
            *("--output_dir", str(output)),
            *SMALL,
            *flags,
        ]
    )


def test_digits_need_nothing(tmp_path, capsys):
    main(["train", "--output_dir", str(tmp_path), *QUICK])
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert f'pipeline("image-classification", model="{tmp_path}")' in printed
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert 0.0 <= metrics["eval_accuracy"] <= 1.0
    assert metrics["eval_contrastive_loss"] > 0
    classify = pipeline("image-classification", model=str(tmp_path), device="cpu")
    assert classify(load_benchmark("digits")["test"][0]["image"])[0]["label"] in set("0123456789")


def test_a_model_alone_learns_the_digits_unflipped(checkpoint, tmp_path, monkeypatch):
    def no_augmentation(processor):
        raise AssertionError("digits are no longer themselves when flipped")

    monkeypatch.setattr("clce_hf.cli.train.training_rows", no_augmentation)
    model = ["--model_name_or_path", checkpoint, "--ignore_mismatched_sizes"]
    main(["train", *model, "--output_dir", str(tmp_path), *SMALL])
    config = json.loads((tmp_path / "config.json").read_text())
    assert list(config["label2id"]) == list("0123456789")


def test_the_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out.startswith("clce-hf 0.")


def test_the_digits_are_always_the_same():
    splits = load_benchmark("digits")
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (1297, 500)
    assert test["labels"][:8] == load_benchmark("digits")["test"]["labels"][:8]
    counts = np.bincount(test["labels"])
    assert counts.min() >= 48
    assert counts.max() <= 52


def test_the_demo_compares_both_losses(capsys):
    main(["demo", "--max_steps", "60", "--use_cpu", "--disable_tqdm", "true"])
    table = capsys.readouterr().out.split("loss  ")[-1].splitlines()
    accuracies = {line[:14].strip(): float(line[14:23].rstrip("% ")) for line in table[1:]}
    assert accuracies.keys() == {"cross-entropy", "CLCE"}
    assert min(accuracies.values()) > 15


def test_folders_of_images_from_start_to_pipeline(folder, checkpoint, tmp_path, capsys):
    flags = ["--samples_per_class", "2", "--max_steps", "60", "--learning_rate", "1e-3"]
    train(folder, checkpoint, tmp_path, *flags)
    assert "accuracy       100.00%" in capsys.readouterr().out
    classify = pipeline("image-classification", model=str(tmp_path), device="cpu")
    best = classify(str(folder / "validation" / "cat" / "0.png"))[0]
    assert best["label"] == "cat"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["label2id"] == {name: i for i, name in enumerate(CLASSES)}


@pytest.mark.parametrize("is_named", [True, False])
def test_training_resumes_from_its_checkpoint(folder, checkpoint, tmp_path, is_named):
    flags = ["--save_strategy", "steps", "--save_steps", "2", "--logging_strategy", "steps"]
    flags += ["--logging_steps", "1"]
    train(folder, checkpoint, tmp_path, *flags, "--learning_rate", "1e-3")
    last = str(tmp_path / "checkpoint-2") if is_named else "true"
    train(
        folder, checkpoint, tmp_path, *flags, "--resume_from_checkpoint", last, "--max_steps", "3"
    )
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["global_step"] == 3
    first, *_, after = (log for log in state["log_history"] if "learning_rate" in log)
    assert first["learning_rate"] == 1e-3 and after["step"] == 3  # the first step is not its own


def test_cross_entropy_alone(folder, checkpoint, tmp_path, capsys):
    train(folder, checkpoint, tmp_path, "--contrastive_weight", "0")
    assert "Cross-entropy\n" in capsys.readouterr().out
    assert "eval_contrastive_loss" not in json.loads((tmp_path / "eval_results.json").read_text())


@pytest.mark.parametrize(
    "flags",
    [
        ["--mixup_alpha", "0.2"],
        ["--cutmix_alpha", "1", "--dataloader_num_workers", "2"],
        ["--mixup_alpha", "0.8", "--cutmix_alpha", "1", "--samples_per_class", "2"],
    ],
    ids=str,
)
def test_training_images_alone_are_mixed(flags, folder, checkpoint, tmp_path, monkeypatch):
    seen = {True: [], False: []}
    compute_loss = CLCETrainer.compute_loss

    def recording(self, model, inputs, *others, **named):
        seen[model.training].append(inputs["labels"])
        return compute_loss(self, model, inputs, *others, **named)

    monkeypatch.setattr(CLCETrainer, "compute_loss", recording)
    train(folder, checkpoint, tmp_path, *flags, "--max_steps", "6")
    trained, evaluated = torch.cat(seen[True]), torch.cat(seen[False])
    assert trained.shape == (6 * 8, len(CLASSES))
    assert (trained.amax(1) < 1).any()
    assert evaluated.dtype == torch.int64
    # The saved model, evaluated without mixing, comes to the same.
    train(folder, str(tmp_path), tmp_path / "again", "--do_train", "false")
    mixed, plain = (
        json.loads((output / "eval_results.json").read_text())["eval_loss"]
        for output in (tmp_path, tmp_path / "again")
    )
    assert mixed == pytest.approx(plain, rel=1e-6)


def test_digits_are_mixed_too(tmp_path):
    main(["train", "--output_dir", str(tmp_path), "--mixup_alpha", "0.2", *QUICK])
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert metrics["eval_contrastive_loss"] > 0


def test_evaluation_without_training(folder, checkpoint, tmp_path, capsys):
    with pytest.warns(UserWarning, match="does not know the classes ant"):  # it has no names
        train(folder, checkpoint, tmp_path, "--do_train", "false")
    printed = capsys.readouterr().out
    assert "accuracy" in printed
    assert "training time" not in printed
    assert not (tmp_path / "model.safetensors").exists()


def test_a_checkpoint_is_not_scored_on_classes_at_other_places(folder, checkpoint, tmp_path):
    train(folder, checkpoint, tmp_path / "run", "--max_steps", "1")
    shutil.copytree(folder / "validation", tmp_path / "other")
    (tmp_path / "other" / "ant").rename(tmp_path / "other" / "zebra")
    data = ["--train_dir", str(tmp_path / "other"), "--validation_dir", str(tmp_path / "other")]
    run = ["--model_name_or_path", str(tmp_path / "run"), "--output_dir", str(tmp_path / "again")]
    with pytest.raises(SystemExit, match=r"ant, bee, cat, dog.*bee, cat, dog, zebra.*evaluate"):
        main(["train", *data, *run, "--do_train", "false", *QUICK])
    # As many classes, all of other names, may be other words for the same ones.
    for name in ("bee", "cat", "dog"):
        (tmp_path / "other" / name).rename(tmp_path / "other" / f"a {name}")
    with pytest.warns(UserWarning, match="does not know the classes a bee, a cat"):
        main(["train", *data, *run, "--do_train", "false", *QUICK])


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_config_file_and_flags_that_win(tmp_path, suffix):
    settings = {"learning_rate": 3e-4, "temperature": 0.2, "bf16": True, "use_cpu": True}
    file = tmp_path / f"run.{suffix}"
    file.write_text(json.dumps(settings) if suffix == "json" else yaml.safe_dump(settings))
    _, _, args = parse([str(file), "--temperature", "0.7"])
    assert (args.learning_rate, args.temperature, args.bf16) == (3e-4, 0.7, True)
    assert args.samples_per_class == 4  # of the digits, since no data set is named


def test_defaults_of_the_digits_stay_with_the_digits(tmp_path):
    _, _, digits = parse(["--learning_rate", "0.5"])
    _, _, other = parse(["--dataset_name", "some/photos"])
    assert (digits.learning_rate, digits.num_train_epochs) == (0.5, 30)
    assert (other.samples_per_class, other.num_train_epochs) == (None, 3)
    assert other.eval_strategy == "epoch"
    assert other.remove_unused_columns is False


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train", "--no_such_flag", "1"], "unrecognized arguments: --no_such_flag"),
        (["train", "--sample_per_class=4"], "did you mean --samples_per_class?"),
        (["train", "--temp", "0.1"], "unrecognized arguments: --temp 0.1"),
        (["train", "--temperature", "-1"], "temperature must be positive"),
        (["train", "--variant", "mean"], "--variant"),
        (["train", "--samples_per_class", "5"], "samples_per_class=5 must divide"),
        (["train", "--train_val_split", "2"], r"train_val_split must lie in (0, 1)"),
        (["train", "--validation_dir", "x"], "validation_dir needs train_dir"),
        (
            ["train", "--dataset_name", "x", "--train_dir", "y"],
            "one of dataset_name, benchmark and train_dir",
        ),
        (["train", "nothing.yaml"], "the config file cannot be read"),
        (["tarin"], "there is no command 'tarin'"),
        (["train", "--dataset_name", "no/such-data"], "give --model_name_or_path"),
        (["train", "--dataset_name", "no/such-data", *NO_MODEL], "no/such-data"),
        (["train", "--dataset_name", "no/such-data", *NO_MODEL], "hf auth login"),
        (["train", "--train_dir", "no/folder", *NO_MODEL], "no folder 'no/folder'"),
        (["train", "--train_dir", ".", "--model_type", "bert"], "--model_type bert"),
        (["train", "--resume_from_checkpoint", "none"], "no folder 'none'"),
        (["train", "--resume_from_checkpoint", "true"], "there is no checkpoint in"),
        (["train", "--max_train_samples", "0"], "max_train_samples must be positive"),
        (["train", "--mixup_alpha", "-1"], "mixup_alpha must be finite and not negative, got -1"),
        (["demo", "--do_eval", "false"], "demo trains and evaluates"),
        (["train", "--model_name_or_path", "no/such-model"], "no/such-model"),
        (["train", "--model_name_or_path", "no/such-model"], "hf auth login"),
        (["train", "--model_type", "vit"], "--model_type needs --image_processor_name"),
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
        (["--model_name_or_path", ""], "give --model_name_or_path.*google/vit"),
        (["--samples_per_class", "8"], "samples_per_class=8 fills the batch of 8"),
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
    kinds = (ModelArguments, DataArguments, LabeledImagesArguments, TrainArguments)
    flags = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    files = (ROOT / "clce_hf").rglob("*.py")
    blamed = set(
        re.findall(r'ArgumentError\(\s*"(\w+)"', "".join(file.read_text() for file in files))
    )
    assert len(blamed) >= 7
    assert {FLAGS.get(argument, argument) for argument in blamed} <= flags
    assert with_flag(ArgumentError("folder", "It is empty.")) == "--benchmark_dir: It is empty."
    assert with_flag(ValueError("It is empty.")) == "It is empty."


def test_fewer_digits_on_request(tmp_path):
    limits = ["--max_train_samples", "64", "--max_eval_samples", "10"]
    main(["train", "--output_dir", str(tmp_path), *limits, *QUICK])
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert metrics["eval_accuracy"] * 10 == pytest.approx(round(metrics["eval_accuracy"] * 10))


def test_the_digits_by_name_are_the_digits_by_default():
    default, named = parse([]), parse(["--benchmark", "digits"])
    assert default[:2] == named[:2]
    assert default[2].num_train_epochs == named[2].num_train_epochs == 30


def test_larger_groups_with_the_last_batch_dropped(folder, checkpoint, tmp_path):
    flags = ["--samples_per_class", "8", "--per_device_train_batch_size", "16"]
    train(folder, checkpoint, tmp_path, *flags, "--dataloader_drop_last", "true")
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("share", [0.0, 0.5])
# Of datasets 4, which leaves a file open that it cannot decode.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_image_is_named(folder, checkpoint, tmp_path, share, workers):
    shutil.copytree(folder, tmp_path / "photos")
    damaged = tmp_path / "photos" / "validation" / "bee" / "0.png"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[: int(share * len(whole))] or b"no image")
    with pytest.raises(SystemExit, match=r"The image .*bee/0\.png cannot be read"):
        train(tmp_path / "photos", checkpoint, tmp_path, "--dataloader_num_workers", workers)


def test_an_unknown_setting_in_a_config_file(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text("learning_rat: 1.0")
    with pytest.raises(SystemExit):
        parse([str(tmp_path / "run.yaml")])
    message = capsys.readouterr().err
    unknown = "unknown settings in the config file: learning_rat"
    assert f"{unknown} (did you mean --learning_ra" in message
    assert len(message.splitlines()) < 5


def test_a_head_for_other_classes(folder, tmp_path):
    vit(num_labels=7).save_pretrained(tmp_path / "seven")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "seven")
    with pytest.raises(SystemExit, match="--ignore_mismatched_sizes"):
        train(folder, str(tmp_path / "seven"), tmp_path / "out")
    train(folder, str(tmp_path / "seven"), tmp_path / "out", "--ignore_mismatched_sizes")
    assert len(json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]) == 4


def test_a_timm_checkpoint(folder, tmp_path):
    save_timm("timm-vit", tmp_path / "timm")
    train(folder, str(tmp_path / "timm"), tmp_path / "out")
    classify = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    assert classify(str(folder / "validation" / "bee" / "0.png"))[0]["label"] in CLASSES


def test_the_module_runs_as_a_program(tmp_path):
    run = [sys.executable, "-m", "clce_hf"]
    helped = subprocess.run([*run, "--help"], capture_output=True, text=True, timeout=600)
    assert helped.returncode == 0
    assert "clce-hf COMMAND" in helped.stdout
    done = subprocess.run(
        [*run, "train", "--output_dir", str(tmp_path), *QUICK],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "Warning" not in done.stderr


FLAGS_OF_THE_EXAMPLE = {
    *("model_name_or_path", "model_type", "config_name", "cache_dir", "model_revision"),
    *("image_processor_name", "token", "trust_remote_code", "ignore_mismatched_sizes"),
    *("dataset_name", "dataset_config_name", "train_dir", "validation_dir", "train_val_split"),
    *("max_train_samples", "max_eval_samples", "image_column_name", "label_column_name"),
}
"""What run_image_classification.py of Transformers takes beside `TrainingArguments`."""


@pytest.mark.parametrize("program", ["clce-hf train", "example"])
def test_the_flags_are_those_of_the_example_of_transformers(program, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        if program == "example":
            script = ROOT / "examples" / "image_classification.py"
            monkeypatch.setattr(sys, "argv", [script.name, "--help"])
            runpy.run_path(str(script), run_name="__main__")
        else:
            main(["train", "--help"])
    taken = set(re.findall(r"--(\w+)", capsys.readouterr().out))
    fields = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    of_clce = {field.name for field in dataclasses.fields(CLCEConfig) if field.init} - fields
    assert len(fields) > 90 and len(of_clce) == 10
    assert taken >= FLAGS_OF_THE_EXAMPLE | fields | of_clce


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
    assert (tmp_path / "cache" / "imagefolder").is_dir()
    assert (tmp_path / "run" / "preprocessor_config.json").is_file()
