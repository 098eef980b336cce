"""The digits and the small ViT, which need no download, and the demo of both losses."""

import json
import sys

import numpy as np
import pytest
from support.commands import QUICK, SMALL
from transformers import pipeline

from clce_hf.cli.main import main
from clce_hf.cli.parsing import parse
from clce_hf.data.load import load_benchmark


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


def test_the_digits_are_always_the_same():
    splits = load_benchmark("digits")
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (1297, 500)
    assert test["labels"][:8] == load_benchmark("digits")["test"]["labels"][:8]
    counts = np.bincount(test["labels"])
    assert counts.min() >= 48
    assert counts.max() <= 52


def test_the_digits_by_name_are_the_digits_by_default():
    default, named = parse([]), parse(["--benchmark", "digits"])
    assert default[:2] == named[:2]
    assert default[2].num_train_epochs == named[2].num_train_epochs == 30


def test_fewer_digits_on_request(tmp_path):
    limits = ["--max_train_samples", "64", "--max_eval_samples", "10"]
    main(["train", "--output_dir", str(tmp_path), *limits, *QUICK])
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert metrics["eval_accuracy"] * 10 == pytest.approx(round(metrics["eval_accuracy"] * 10))


def test_digits_are_mixed_too(tmp_path):
    main(["train", "--output_dir", str(tmp_path), "--mixup_alpha", "0.2", *QUICK])
    metrics = json.loads((tmp_path / "all_results.json").read_text())
    assert metrics["eval_contrastive_loss"] > 0


def test_defaults_of_the_digits_stay_with_the_digits(tmp_path):
    _, _, digits = parse(["--learning_rate", "0.5"])
    _, _, other = parse(["--dataset_name", "some/photos"])
    assert (digits.learning_rate, digits.num_train_epochs) == (0.5, 30)
    assert (other.samples_per_class, other.num_train_epochs) == (None, 3)
    assert other.eval_strategy == "epoch"
    assert other.remove_unused_columns is False


def test_the_demo_compares_both_losses(capsys):
    main(["demo", "--max_steps", "60", "--use_cpu", "--disable_tqdm", "true"])
    _, header, *lines = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert header.split() == ["loss", "accuracy", "cross-entropy", "seconds"]
    accuracies = {name: float(rate.rstrip("%")) for name, rate, *_ in map(str.split, lines)}
    assert accuracies.keys() == {"cross-entropy", "CLCE"}
    assert min(accuracies.values()) > 15


@pytest.mark.parametrize("command", ["demo", "train"])
def test_without_the_extra_one_line_says_which_it_is(command, tmp_path, monkeypatch):
    for module in ("sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    flags = ["--output_dir", str(tmp_path)] if command == "train" else []
    with pytest.raises(SystemExit) as refused:
        main([command, *flags])
    message = refused.value.code
    assert message.startswith("clce-hf: error: ") and "\n" not in message
    assert 'pip install "clce_hf[demo]"' in message
