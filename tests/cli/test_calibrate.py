"""`clce-hf train --calibrate`: what it does after training, and what it says where it does not."""

import json

import pytest
import torch
from sklearn.metrics import log_loss
from support.commands import QUICK, train
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTImageProcessor,
)

from clce_hf.cli.main import main
from clce_hf.data.load import load_benchmark

RUN = ["--max_steps", "60", "--save_strategy", "steps", "--save_steps", "60", *QUICK[2:]]


def logits_of(folder):
    """Of the held-out digits, by what is saved in a folder."""
    digits = load_benchmark("digits")["test"]
    images = [image.convert("RGB") for image in digits["image"]]
    pixels = AutoImageProcessor.from_pretrained(folder)(images, return_tensors="pt")
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**pixels).logits.double(), digits["labels"][:]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A run on the digits, which are enough."""
    folder = tmp_path_factory.mktemp("digits")
    main(["train", "--output_dir", str(folder), *RUN])
    return folder


def test_the_saved_model_is_calibrated_where_images_are_enough(calibrated):
    before, labels = logits_of(calibrated / "checkpoint-60")
    after, _ = logits_of(calibrated)
    results = json.loads((calibrated / "all_results.json").read_text())
    temperature = results["calibration_temperature"]
    assert abs(temperature - 1) > 0.01 and results["calibration_images"] == 500
    torch.testing.assert_close(after, before / temperature, rtol=1e-4, atol=1e-4)
    # What was evaluated is the model before, of images that nothing was fitted on.
    expected = log_loss(labels, before.softmax(1).numpy())
    assert results["eval_loss"] == pytest.approx(expected, abs=1e-4)
    assert results["negative_log_likelihood_before"] == pytest.approx(expected, abs=1e-4)
    assert not [path.name for path in calibrated.iterdir() if path.name.startswith("tmp")]


@pytest.mark.slow
def test_a_model_that_is_only_evaluated_is_calibrated_when_asked(calibrated, tmp_path, capsys):
    only = ["--model_name_or_path", str(calibrated / "checkpoint-60"), "--do_train", "false"]
    main(["train", *only, "--output_dir", str(tmp_path), *RUN])
    assert not list(tmp_path.glob("*.safetensors"))
    assert "temperature" not in capsys.readouterr().out
    main(["train", *only, "--output_dir", str(tmp_path), *RUN, "--calibrate", "true"])
    torch.testing.assert_close(logits_of(tmp_path)[0], logits_of(calibrated)[0])
    temperature = json.loads((calibrated / "all_results.json").read_text())
    printed = capsys.readouterr().out
    assert f"temperature    {temperature['calibration_temperature']:.3f}: negative" in printed


def test_a_model_that_gains_nothing_is_left_as_it_was(calibrated, tmp_path, capsys):
    only = ["--model_name_or_path", str(calibrated), "--do_train", "false", "--do_eval", "false"]
    main(["train", *only, "--output_dir", str(tmp_path), *RUN, "--calibrate", "true"])
    assert torch.equal(logits_of(tmp_path)[0], logits_of(calibrated)[0])
    results = json.loads((tmp_path / "calibration_results.json").read_text())
    assert results["calibration_temperature"] == 1.0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "not calibrated" in x]
    assert "the model was left as it was" in line
    assert f"the model as it is {results['negative_log_likelihood_before']:.4f}" in line


def test_the_files_of_metrics_are_of_the_model_that_is_saved(tmp_path):
    def results(**flags):
        given = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        main(["train", "--output_dir", str(tmp_path), *RUN[2:], *given])
        return json.loads((tmp_path / "all_results.json").read_text())

    fitted = results(max_steps=60)
    assert "negative_log_likelihood_before" in fitted and "eval_loss" in fitted
    again = {"model_name_or_path": tmp_path, "do_train": False, "calibrate": "true"}
    assert "rejected_temperature" in results(**again)
    (tmp_path / "eval_results.json").write_text("{")  # cut off while it was written
    trained = results(max_steps=60)
    assert "rejected_temperature" not in trained and "calibration_temperature" in trained
    untouched = results(max_steps=2, calibrate="false", do_eval=False, eval_strategy="no")
    assert "train_loss" in untouched
    assert not {"calibration_temperature", "eval_loss"} & set(untouched)
    assert not (tmp_path / "calibration_results.json").exists()
    assert not (tmp_path / "eval_results.json").exists()


def test_too_few_images_are_said_in_one_line(folder, checkpoint, tmp_path, capsys):
    train(folder, checkpoint, tmp_path / "auto")
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "not calibrated" in x]
    assert "20 labeled ones are too few: give it 100" in line
    train(folder, checkpoint, tmp_path / "no", "--calibrate", "false")
    assert "calibrated" not in capsys.readouterr().out
    assert (tmp_path / "no" / "model.safetensors").exists()


def test_where_it_is_sure_to_fail_it_is_refused_before_training(folder, checkpoint, tmp_path):
    (tmp_path / "run.yaml").write_text("calibrate: true\n")
    flags = ["--train_dir", str(folder / "train"), "--validation_dir", str(folder / "validation")]
    flags += ["--model_name_or_path", checkpoint, "--output_dir", str(tmp_path / "run"), *QUICK]
    with pytest.raises(SystemExit, match=r"--calibrate: .*20 labeled ones are too few"):
        main(["train", str(tmp_path / "run.yaml"), *flags])
    assert not list((tmp_path / "run").iterdir())


def test_when_it_fails_the_trained_model_is_saved(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DeiTConfig(**sizes, image_size=16, patch_size=8, num_labels=10)
    DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "two")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "two")
    flags = ["--benchmark", "digits", "--model_name_or_path", str(tmp_path / "two")]
    flags += ["--contrastive_weight", "0", "--ignore_mismatched_sizes", *QUICK]
    flags += ["--eval_strategy", "no", "--do_eval", "false"]  # which knows no two heads
    run = tmp_path / "run"
    message = r"--calibrate: .*two heads.*Nothing is lost: the trained model is saved in .*run"
    with pytest.raises(SystemExit, match=message):
        main(["train", *flags, "--output_dir", str(run), "--calibrate", "true"])
    assert (run / "model.safetensors").exists() and (run / "train_results.json").exists()


@pytest.mark.parametrize("command", ["compare", "demo"])
def test_commands_that_do_not_calibrate_say_so(tmp_path, command):
    output = ["--output_dir", str(tmp_path)] if command == "compare" else []
    with pytest.raises(SystemExit, match=r"--calibrate: .*leave it out"):
        main([command, *output, "--calibrate", "true"])
