"""A checkpoint measured, through the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support.launching import launch
from support.missing_packages import run_without
from support.tiny import CLASSES, vit
from transformers import ViTConfig, ViTImageProcessor, ViTModel

from clce_hf.cli.main import main
from clce_hf.data.load import load_labeled_images
from clce_hf.data.sources import ImageFolders
from clce_hf.data.transforms import evaluation_rows
from clce_hf.evaluation.embeddings import silhouette
from clce_hf.evaluation.fewshot import few_shot_accuracy
from clce_hf.evaluation.retrieval import retrieval_metrics

PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})
NAMES = {
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: i for i, name in enumerate(CLASSES)},
}
FEW = ["--n_way", "2", "--num_queries", "2", "--k_shots", "1,3", "--num_episodes", "50"]


def save(model, folder):
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return str(folder)


def evaluate(checkpoint, output, *flags):
    main(
        ["evaluate", "--model_name_or_path", checkpoint, "--output_dir", str(output), *FEW, *flags]
    )
    return json.loads((output / "evaluation.json").read_text())


def by_hand(model, images):
    rows = images.with_transform(evaluation_rows(PROCESSOR))
    pixels = torch.stack([row["pixel_values"] for row in rows])
    with torch.no_grad():
        outputs = model.eval()(pixels, output_hidden_states=True)
    embeddings = model.vit.layernorm(outputs.hidden_states[-1])[:, 0]
    return outputs.logits, embeddings.detach(), torch.tensor(images["labels"])


def test_a_checkpoint_is_measured(folder, tmp_path, capsys):
    model = vit(**NAMES)
    checkpoint = save(model, tmp_path / "checkpoint")
    data = ["--data_dir", str(folder / "validation")]
    measured = evaluate(checkpoint, tmp_path / "out", *data, "--batch_size", "7")
    images = load_labeled_images(ImageFolders({"test": str(folder / "validation")}))
    logits, embeddings, labels = by_hand(model, images)
    metrics = measured["metrics"]
    assert measured["left_out"] == []
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert metrics["silhouette"] == pytest.approx(silhouette(embeddings, labels), abs=1e-5)
    for name, value in retrieval_metrics(embeddings, labels).items():
        assert metrics[name] == pytest.approx(value, abs=1e-5)
    expected = torch.nn.functional.cross_entropy(logits, labels).item()
    assert metrics["negative_log_likelihood"] == pytest.approx(expected, rel=1e-5)
    few = few_shot_accuracy(
        embeddings, labels, n_way=2, k_shot=3, num_queries=2, num_episodes=50, seed=42
    )
    assert metrics["2_way_3_shot_centroid"] == pytest.approx(few.mean, abs=1e-6)
    assert metrics["2_way_3_shot_centroid_interval"] == pytest.approx(few.interval, abs=1e-6)
    printed = capsys.readouterr().out
    assert f"{metrics['accuracy']:.4f}" in printed and "2 way 3 shot centroid" in printed
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"{metrics['accuracy']:.4f}" in report and "dog" in report
    assert f"{metrics['map_at_r']:.4f}" in report and "Right: an image of dog" in report
    right = logits.argmax(1) == labels
    by_class = {name: right[labels == i].float().mean().item() for i, name in enumerate(CLASSES)}
    assert {one["name"]: one["accuracy"] for one in measured["classes"]} == pytest.approx(by_class)
    assert {one["images"] for one in measured["classes"]} == {5}
    worst = measured["classes"][0]
    assert f"  {worst['name']}  {worst['accuracy']:.4f}    5\n" in printed


def test_the_worst_of_many_classes_are_printed_and_all_are_kept(tmp_path, capsys):
    names = {f"class {i:02}": i for i in range(12)}
    generator = np.random.default_rng(0)
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for j in range(4):
            pixels = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{j}.png")
    model = vit(label2id=names, id2label={i: name for name, i in names.items()}, num_labels=12)
    checkpoint = save(model, tmp_path / "checkpoint")
    measured = evaluate(checkpoint, tmp_path / "out", "--data_dir", str(tmp_path / "images"))
    accuracies = [one["accuracy"] for one in measured["classes"]]
    assert accuracies == sorted(accuracies) and len(accuracies) == 12
    assert measured["metrics"]["balanced_accuracy"] == pytest.approx(sum(accuracies) / 12)
    assert measured["metrics"]["top_5_accuracy"] >= measured["metrics"]["accuracy"]
    printed = capsys.readouterr().out
    table = printed.split("Accuracy by class: 10 worst of 12 classes\n")[1].split("\n\n")[0]
    assert len(table.splitlines()) == 11
    best = measured["classes"][-1]["name"]
    assert best not in table and f">{best}<" in (tmp_path / "out" / "report.html").read_text()


def test_a_model_that_diverged_is_refused_by_name(folder, tmp_path):
    model = vit(**NAMES)
    torch.nn.init.constant_(model.vit.layernorm.weight, torch.nan)
    checkpoint = save(model, tmp_path / "checkpoint")
    data = ("--data_dir", str(folder / "validation"))
    message = (
        r"for 20 of 20 images, and so are its weights vit.layernorm.weight: .*diverged\. Take a"
    )
    with pytest.raises(SystemExit, match=message):
        evaluate(checkpoint, tmp_path / "out", *data)
    model = vit(**NAMES)  # whose embeddings are finite
    torch.nn.init.constant_(model.classifier.bias, torch.nan)
    with pytest.raises(SystemExit, match=r"its weights classifier.bias: .*lower learning_rate"):
        evaluate(save(model, tmp_path / "head"), tmp_path / "out", *data)


def test_a_class_of_one_image_is_found_but_does_not_search(folder, tmp_path):
    shutil.copytree(folder / "validation", tmp_path / "some")
    for file in sorted((tmp_path / "some" / "ant").iterdir())[1:]:
        file.unlink()
    model = vit(**NAMES)
    checkpoint = save(model, tmp_path / "checkpoint")
    measured = evaluate(checkpoint, tmp_path / "out", "--data_dir", str(tmp_path / "some"))
    images = load_labeled_images(ImageFolders({"test": str(tmp_path / "some")}))
    _, embeddings, labels = by_hand(model, images)
    assert labels.bincount()[0] == 1
    for name, value in retrieval_metrics(embeddings, labels).items():
        assert measured["metrics"][name] == pytest.approx(value, abs=1e-5)
    assert "Neighbors</h2>" in (tmp_path / "out" / "report.html").read_text()


def test_classes_are_known_by_name(folder, tmp_path):
    # The folder lacks the first class, so it numbers the others from 0.
    shutil.copytree(folder / "validation", tmp_path / "some")
    shutil.rmtree(tmp_path / "some" / "ant")
    model = vit(**NAMES)
    checkpoint = save(model, tmp_path / "checkpoint")
    flags = ["--data_dir", str(tmp_path / "some"), "--report", "false"]
    measured = evaluate(checkpoint, tmp_path / "out", *flags)
    images = load_labeled_images(ImageFolders({"test": str(tmp_path / "some")}))
    logits, _, labels = by_hand(model, images)
    accuracy = (logits.argmax(1) == labels + 1).float().mean().item()
    assert measured["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert not (tmp_path / "out" / "report.html").exists()


def test_classes_that_the_model_does_not_know_make_episodes(folder, tmp_path):
    checkpoint = save(vit(num_labels=7), tmp_path / "checkpoint")
    measured = evaluate(checkpoint, tmp_path / "out", "--data_dir", str(folder / "validation"))
    why = (
        "the images have classes that the model does not know: ant, bee, cat, dog; it knows "
        "LABEL_0, LABEL_1, LABEL_2, LABEL_3, LABEL_4, LABEL_5, LABEL_6"
    )
    assert measured["left_out"] == [{"what": "accuracy", "why": why}]
    assert "accuracy" not in measured["metrics"] and "2_way_1_shot_logistic" in measured["metrics"]
    assert (tmp_path / "out" / "report.html").exists()


def test_a_model_without_a_head_has_embeddings(folder, tmp_path, capsys):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ViTConfig(image_size=16, patch_size=8, intermediate_size=48, **sizes, **NAMES)
    checkpoint = save(ViTModel(config), tmp_path / "checkpoint")
    measured = evaluate(checkpoint, tmp_path / "out", "--data_dir", str(folder / "validation"))
    why = "the checkpoint has no classification layer"
    assert measured["left_out"] == [{"what": "accuracy", "why": why}]
    assert "accuracy" not in measured["metrics"] and "iso_score" in measured["metrics"]
    assert "has no classification layer" in capsys.readouterr().out


def test_what_there_are_too_few_images_for_is_left_out(folder, tmp_path):
    checkpoint = save(vit(**NAMES), tmp_path / "checkpoint")
    data = ["--data_dir", str(folder / "validation")]
    flags = ["--k_shots", "1,20", "--report", "false"]
    measured = evaluate(checkpoint, tmp_path / "out", *data, *flags)
    (reason,) = measured["left_out"]
    assert reason["what"] == "few-shot"
    assert reason["why"].startswith("2-way 20-shot episodes with 2 queries need 2 classes")
    assert "accuracy" in measured["metrics"] and "silhouette" in measured["metrics"]
    assert "2_way_1_shot_centroid" in measured["metrics"]
    measured = evaluate(checkpoint, tmp_path / "out", *data, "--n_way", "5", "--report", "false")
    assert len(measured["left_out"]) == 2
    reason = measured["left_out"][0]
    assert reason["what"] == "few-shot"
    assert reason["why"].startswith("5-way 1-shot episodes with 2 queries need 5 classes")
    assert "accuracy" in measured["metrics"] and "silhouette" in measured["metrics"]


def test_a_single_image_has_an_accuracy(folder, tmp_path):
    checkpoint = save(vit(**NAMES), tmp_path / "checkpoint")
    image = next((folder / "validation" / NAMES["id2label"][0]).iterdir())
    (tmp_path / "one" / image.parent.name).mkdir(parents=True)
    shutil.copy(image, tmp_path / "one" / image.parent.name)
    measured = evaluate(checkpoint, tmp_path / "out", "--data_dir", str(tmp_path / "one"))
    assert {"accuracy", "calibration_error"} <= measured["metrics"].keys()
    why = {reason["what"]: reason["why"] for reason in measured["left_out"]}
    assert why.keys() == {"calibrated metrics", "embedding quality", "few-shot"}
    assert why["calibrated metrics"].endswith("takes 2 images at least, got 1.")


def test_digits_need_no_data(tmp_path):
    short = ("--max_steps", "30", "--use_cpu", "--calibrate", "false")
    main(["train", "--output_dir", str(tmp_path / "run"), *short])
    trained = json.loads((tmp_path / "run" / "all_results.json").read_text())
    measured = evaluate(str(tmp_path / "run"), tmp_path / "out")
    assert measured["metrics"]["accuracy"] == pytest.approx(trained["eval_accuracy"])
    assert measured["metrics"]["negative_log_likelihood"] == pytest.approx(
        trained["eval_loss"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_name_or_path", "no/such-model"], "'no/such-model' could not be loaded"),
        (["--data_dir", "nowhere"], "There is no folder 'nowhere'"),
        (["--dataset_name", "bob/none"], "'bob/none' could not be loaded"),
        (["--k_shots", "1;5"], "--k_shots: got 1;5, but it takes numbers separated by commas"),
        (["--split", "test"], "split needs dataset_name or benchmark"),
        (
            ["--data_dir", "a", "--dataset_name", "b"],
            "data_dir, or dataset_name or bench",
        ),
    ],
)
def test_bad_evaluations_are_refused(hub, tmp_path, capsys, flags, message):
    checkpoint = save(vit(**NAMES), tmp_path / "checkpoint")
    with pytest.raises(SystemExit) as refused:
        evaluate(checkpoint, tmp_path / "out", *flags)
    assert message in str(refused.value) + capsys.readouterr().err


@pytest.mark.slow
def test_processes_share_the_images(folder, tmp_path):
    checkpoint = save(vit(**NAMES), tmp_path / "checkpoint")
    data = ["--data_dir", str(folder / "validation")]
    alone = evaluate(checkpoint, tmp_path / "alone", *data, "--batch_size", "3")
    flags = ["--model_name_or_path", checkpoint, *data, *FEW, "--batch_size", "3"]
    done = launch("-m", "clce_hf", "evaluate", *flags, "--output_dir", str(tmp_path / "two"))
    assert done.stdout.count("What was measured") == 1
    together = json.loads((tmp_path / "two" / "evaluation.json").read_text())
    assert together["metrics"] == pytest.approx(alone["metrics"], abs=1e-5)


@pytest.fixture(scope="module")
def without_the_extra(folder, tmp_path_factory):
    """What `compare`, `evaluate` and `evaluate --report false` print, in a process without it."""
    root = tmp_path_factory.mktemp("without")
    checkpoint = save(vit(**NAMES), root / "checkpoint")
    script = (
        "from clce_hf.cli.main import main\n"
        "evaluate = ['evaluate', *sys.argv[2:]]\n"
        "compare = ['compare', '--max_steps', '1', '--output_dir', sys.argv[1]]\n"
        "for command in (compare, evaluate):\n"
        "    try: main(command)\n"
        "    except SystemExit as refused: print(refused)\n"
        "main([*evaluate, '--report', 'false'])"
    )
    flags = ["--model_name_or_path", checkpoint, "--data_dir", str(folder / "validation"), *FEW]
    arguments = (str(root / "runs"), *flags, "--output_dir", str(root / "out"))
    finished = run_without(["matplotlib", "sklearn"], script, *arguments)
    assert finished.returncode == 0, finished.stderr
    return root, *finished.stdout.split("\n", 2)


@pytest.mark.slow
def test_without_the_extra_nothing_is_trained(without_the_extra):
    root, refused, *_ = without_the_extra
    assert 'pip install "clce_hf[reports]"' in refused
    assert not (root / "runs").exists()


@pytest.mark.slow
def test_without_the_extra_there_is_no_report_but_all_else(without_the_extra):
    root, _, refused, measured = without_the_extra
    assert 'pip install "clce_hf[reports]". Or leave the report out: --report false' in refused
    assert "What was measured" in measured
    assert [file.name for file in (root / "out").iterdir()] == ["evaluation.json"]
