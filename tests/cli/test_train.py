"""Images of folders, from the command to the pipeline."""

import json
import runpy
import shutil
import subprocess
import sys

import pytest
import torch
from support.commands import QUICK, train
from support.tiny import CLASSES, vit
from support.tiny_models import save_timm
from transformers import (
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    ViTImageProcessor,
    pipeline,
)

from clce_hf import CLCETrainer
from clce_hf.cli.main import main


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


def test_logit_adjustment_is_by_the_images_that_are_trained_on(folder, checkpoint, tmp_path):
    rare = tmp_path / "rare"
    shutil.copytree(folder, rare)
    for j in range(1, 10):
        (rare / "train" / "bee" / f"{j}.png").unlink()
    flags = ["--learning_rate", "0", "--logging_strategy", "steps", "--logging_steps", "1"]
    flags += ["--label_smoothing_factor", "0.1", "--head_init", "none"]
    losses = {}
    for root in (folder, rare):
        for tau in ("0", "1"):
            output = tmp_path / f"{root.name} {tau}"
            train(root, checkpoint, output, *flags, "--logit_adjustment", tau)
            log = json.loads((output / "trainer_state.json").read_text())["log_history"]
            evaluated = json.loads((output / "eval_results.json").read_text())
            losses[root.name, tau] = log[0]["ce_loss"], evaluated["eval_loss"]
            assert {"eval_balanced_accuracy", "eval_macro_f1"} < evaluated.keys()
    # Of classes of equal size, it changes nothing; in evaluation, it never does.
    assert losses[folder.name, "1"] == pytest.approx(losses[folder.name, "0"], rel=1e-5)
    assert abs(losses["rare", "1"][0] - losses["rare", "0"][0]) > 0.05
    assert losses["rare", "1"][1] == pytest.approx(losses["rare", "0"][1], rel=1e-6)


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


def test_hidden_states_that_a_checkpoint_asks_for_are_not_held(
    folder, checkpoint, tmp_path, monkeypatch
):
    shutil.copytree(checkpoint, tmp_path / "base")
    vit(output_hidden_states=True).save_pretrained(tmp_path / "base")
    held = []
    evaluation_loop = CLCETrainer.evaluation_loop

    def recording(self, *args, **named):
        output = evaluation_loop(self, *args, **named)
        held.append(output.predictions.shape)
        return output

    monkeypatch.setattr(CLCETrainer, "evaluation_loop", recording)
    train(folder, str(tmp_path / "base"), tmp_path / "run", "--eval_strategy", "epoch")
    assert len(held) == 2 and set(held) == {(20, len(CLASSES))}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["output_hidden_states"]


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


def test_a_head_for_other_classes(folder, tmp_path):
    save_for_other_classes(tmp_path / "seven")
    with pytest.raises(SystemExit, match="--ignore_mismatched_sizes"):
        train(folder, str(tmp_path / "seven"), tmp_path / "out")
    train(folder, str(tmp_path / "seven"), tmp_path / "out", "--ignore_mismatched_sizes")
    assert len(json.loads((tmp_path / "out" / "config.json").read_text())["id2label"]) == 4


def save_for_other_classes(folder):
    vit(num_labels=7).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)


def head_init_of(output):
    """What the arguments say that were saved beside a model."""
    return torch.load(output / "training_args.bin", weights_only=False).head_init


def test_a_new_head_starts_from_class_means(folder, checkpoint, tmp_path, capsys):
    save_for_other_classes(tmp_path / "seven")
    vit().vit.save_pretrained(tmp_path / "headless")
    shutil.copy(tmp_path / "seven" / "preprocessor_config.json", tmp_path / "headless")
    other = ["--ignore_mismatched_sizes", "--learning_rate", "0"]
    runs = {
        "mismatched": (tmp_path / "seven", other, "class_means"),
        "headless": (tmp_path / "headless", [], "class_means"),
        "not asked for": (tmp_path / "seven", [*other, "--head_init", "none"], None),
        "fits": (checkpoint, [], None),
        "fits, but asked for": (checkpoint, ["--head_init", "class_means"], "class_means"),
    }
    for name, (model, flags, expected) in runs.items():
        train(folder, str(model), tmp_path / name, *flags)
        assert head_init_of(tmp_path / name) == expected
        assert ("began as class means" in capsys.readouterr().out) == bool(expected)
    accuracies = [
        json.loads((tmp_path / name / "eval_results.json").read_text())["eval_accuracy"]
        for name in ("mismatched", "not asked for")
    ]
    assert accuracies[0] > 0.9 > 0.5 >= accuracies[1]


def test_a_new_head_of_a_model_with_two_stays_as_it_is(folder, tmp_path):
    tiny = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DeiTConfig(**tiny, image_size=16, patch_size=8, num_labels=7)
    DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path / "distilled")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "distilled")
    flags = ["--ignore_mismatched_sizes", "--contrastive_weight", "0"]
    train(folder, str(tmp_path / "distilled"), tmp_path / "run", *flags)
    assert head_init_of(tmp_path / "run") is None


def test_a_model_trained_from_nothing_starts_from_its_own_head(tmp_path):
    main(["train", "--output_dir", str(tmp_path), *QUICK])
    assert head_init_of(tmp_path) is None


def test_a_timm_checkpoint(folder, tmp_path):
    save_timm("timm-vit", tmp_path / "timm")
    train(folder, str(tmp_path / "timm"), tmp_path / "out")
    classify = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    assert classify(str(folder / "validation" / "bee" / "0.png"))[0]["label"] in CLASSES


def test_the_module_runs_as_a_program(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["clce-hf", "--help"])
    runpy.run_module("clce_hf", run_name="__main__")
    assert "clce-hf COMMAND" in capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "clce_hf", "train", "--output_dir", str(tmp_path), *QUICK],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy" in done.stdout
    assert "Warning" not in done.stderr
