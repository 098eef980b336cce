"""Values with which a command cannot work: one line that names the flag, before any hours of it."""

import json
import re
import shutil

import pytest
from support.commands import QUICK, train
from support.tiny import vit
from transformers import ViTImageProcessor

from clce_hf.cli.main import main


def refusal(capsys, run):
    """The one line in which a command refuses to start."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as error:
        run()
    said = f"{error.value.code}\n{capsys.readouterr().err}"
    [line] = [line for line in said.splitlines() if "error: " in line]
    assert "Traceback" not in said
    return line


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("per_device_train_batch_size", ["0", "-3"]),
        ("per_device_eval_batch_size", ["0", "-1"]),
        ("gradient_accumulation_steps", ["0", "-1"]),
        ("eval_accumulation_steps", ["0"]),
        ("num_train_epochs", ["0", "-2", "nan"]),
        ("max_steps", ["0", "-5"]),
        ("learning_rate", ["-1", "nan", "inf"]),
        ("weight_decay", ["-1", "nan"]),
        ("warmup_steps", ["-1", "nan"]),
        ("adam_beta1", ["1", "-0.1"]),
        ("adam_epsilon", ["-1"]),
        ("label_smoothing_factor", ["1.5", "-1"]),
        ("neftune_noise_alpha", ["-1"]),
        ("eval_steps", ["0", "-1"]),
        ("save_steps", ["0", "-2"]),
        ("logging_steps", ["-1"]),
        ("seed", ["-1", str(2**32)]),
        ("dataloader_num_workers", ["-1"]),
        ("dataloader_persistent_workers", ["true"]),
        ("remove_unused_columns", ["true"]),
        ("label_names", ["species"]),
        ("eval_do_concat_batches", ["false"]),
        ("metric_for_best_model", ["f1", "eval_f1"]),
        ("report_to", ["wandb", "no_such"]),
        ("drop_path_rate", ["1", "-0.1"]),
        ("logit_adjustment", ["-1", "nan", "inf"]),
        ("train_dir", [""]),
        ("label_column_name", ["image"]),
        ("image_column_name", ["label"]),
    ],
)
def test_a_value_that_never_works(flag, values, tmp_path, capsys):
    for value in values:
        flags = [*QUICK, "--output_dir", str(tmp_path / "run"), f"--{flag}", value]
        line = refusal(capsys, lambda flags=flags: main(["train", *flags]))
        assert line.startswith(f"clce-hf train: error: --{flag}: ")
    assert not (tmp_path / "run").exists()


def test_the_ends_of_the_ranges_work(folder, checkpoint, tmp_path):
    flags = ["--learning_rate", "0", "--weight_decay", "0", "--label_smoothing_factor", "1"]
    flags += ["--seed", str(2**32 - 1), "--adam_beta1", "0", "--max_steps", "1"]
    flags += ["--metric_for_best_model", "balanced_accuracy", "--load_best_model_at_end", "true"]
    train(folder, checkpoint, tmp_path, *flags, "--resume_from_checkpoint", "false")
    assert json.loads((tmp_path / "trainer_state.json").read_text())["best_metric"] <= 1


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--optim", "adamw_bnb_8bit"], "optim: .*bitsandbytes"),
        (["--optim_args", "beta"], "optim_args: "),
        (["--lr_scheduler_kwargs", '{"slope": 1}'], "lr_scheduler_kwargs: .*slope"),
        (["--resume_from_checkpoint", "{folder}"], "resume_from_checkpoint: .*trainer_state.json"),
        (["--resume_from_checkpoint", ""], "resume_from_checkpoint: there is no folder ''"),
        (["--output_dir", "{checkpoint}/config.json"], "output_dir: nothing can be written"),
        (["--output_dir", ""], "output_dir: name a folder"),
        (
            ["--dataloader_drop_last", "true", "--per_device_train_batch_size", "41"],
            "dataloader_drop_last: the 40 training images do not fill one batch of 41",
        ),
        (
            ["--metric_for_best_model", "top_5_accuracy"],
            "metric_for_best_model: top_5_accuracy is measured of more than 5 classes, and there "
            "are 4",
        ),
        (["--model_name_or_path", "{checkpoint}/config.json"], "name the folder that it lies in"),
        (["--config_name", "no/config"], "The model 'no/config' could not be loaded"),
    ],
)
def test_a_value_that_does_not_fit(flags, named, folder, checkpoint, tmp_path, capsys):
    places = {"folder": folder, "checkpoint": checkpoint}
    flags = [flag if "slope" in flag else flag.format(**places) for flag in flags]
    capsys.readouterr()
    with pytest.raises(SystemExit, match=f"^clce-hf: error: .*{named}"):
        train(folder, checkpoint, tmp_path, *flags)


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize(
    ("size", "channels", "said"), [(32, 3, "3 x 32 x 32"), (16, 1, "[Cc]hannel dimension")]
)
def test_a_processor_whose_pixels_the_model_does_not_take(
    command, size, channels, said, folder, tmp_path
):
    vit(num_channels=channels).save_pretrained(tmp_path / "model")
    ViTImageProcessor(size={"height": size, "width": size}).save_pretrained(tmp_path / "model")
    with pytest.raises(SystemExit, match=f"ViTForImageClassification does not take .*{said}") as e:
        if command == "train":
            train(folder, str(tmp_path / "model"), tmp_path / "run")
        else:
            main(
                [
                    *("evaluate", "--model_name_or_path", str(tmp_path / "model")),
                    *("--data_dir", str(folder / "validation")),
                    *("--output_dir", str(tmp_path / "run")),
                ]
            )
    assert ("--image_processor_name" in str(e.value.code)) == (command == "train")


@pytest.mark.parametrize(
    ("command", "flag", "value"),
    [
        ("evaluate", "batch_size", "0"),
        ("evaluate", "n_way", "1"),
        ("evaluate", "num_queries", "0"),
        ("evaluate", "num_episodes", "-1"),
        ("evaluate", "k_shots", "1,0"),
        ("evaluate", "output_dir", ""),
        ("compare", "batch_sizes", "8,0"),
        ("compare", "shots", "-1"),
        ("compare", "rank_by", "f1"),
        ("compare", "do_train", "false"),
        ("compare", "push_to_hub", "true"),
        ("compare", "seed", "-1"),
        ("demo", "resume_from_checkpoint", "true"),
    ],
)
def test_values_of_the_other_commands(command, flag, value, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refusal(capsys, lambda: main([command, f"--{flag}", value]))
    assert f"error: --{flag}: " in line
    assert not list(tmp_path.rglob("*.*"))


def test_a_method_with_such_a_value(tmp_path, capsys):
    (tmp_path / "methods.yaml").write_text("mine: {per_device_train_batch_size: 0}")
    flags = ["--methods", "", "--settings", str(tmp_path / "methods.yaml")]
    flags += ["--output_dir", str(tmp_path / "run")]
    line = refusal(capsys, lambda: main(["compare", *flags]))
    assert "mine: --per_device_train_batch_size: got 0" in line


def test_validation_images_that_are_trained_on(folder, checkpoint, tmp_path):
    with pytest.warns(UserWarning, match="--validation_dir .*shares images with --train_dir"):
        train(folder, checkpoint, tmp_path, "--validation_dir", str(folder / "train"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model.safetensors", lambda whole: whole[:1000]),
        ("config.json", lambda whole: whole[:100]),
        ("config.json", lambda whole: whole.replace(b'"hidden_size": 32', b'"hidden_size": "a"')),
        ("preprocessor_config.json", lambda whole: b"{"),
    ],
    ids=["weights cut off", "config cut off", "a wrong type", "processor cut off"],
)
def test_a_damaged_checkpoint(file, content, folder, checkpoint, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    (damaged / file).write_bytes(content((damaged / file).read_bytes()))
    with pytest.raises(SystemExit, match=rf"{re.escape(str(damaged))}' could not be loaded: "):
        train(folder, str(damaged), tmp_path / "run")
