"""The model card: its metadata, what it tells, and what it keeps to itself."""

import getpass
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from PIL import Image
from support import ROOT
from support.beside_stock import Stream
from support.pushing import (
    NAMES,
    PROCESSOR,
    TOKEN,
    make_trainer,
    repository,
    run_without_the_package,
)
from support.tiny import CLASSES, Images, vit
from torch import nn
from transformers import AutoModelForImageClassification

from clce_hf import CLCETrainer, LogitAdjustedLoss
from clce_hf.hub.results import final_metrics


def card_of(folder):
    return ModelCard.load(folder / "README.md")


def test_the_card_holds_nothing_of_the_machine(hub, tmp_path):
    base = tmp_path / "base"
    vit(**NAMES).save_pretrained(base)
    trainer = make_trainer(
        tmp_path / "run", lambda **_: AutoModelForImageClassification.from_pretrained(base)
    )
    trainer.train()
    base.rename(tmp_path / "moved")  # a name that is no folder any more is no model on the Hub
    trainer.push_to_hub(dataset_tags=str(tmp_path / "images"))
    pushed = repository(hub).files
    card = pushed["README.md"].decode()
    for secret in (TOKEN, str(tmp_path), str(Path.home()), getpass.getuser(), socket.gethostname()):
        assert secret not in card.replace("generated_from_trainer", "")
    assert "base_model" not in card
    for name, content in pushed.items():
        assert TOKEN.encode() not in content, name
    arguments = torch.load(tmp_path / "run" / "training_args.bin", weights_only=False)
    assert arguments.hub_token is None and arguments.hub_model_id == "ann/photos"


def test_a_card_of_cross_entropy_alone_does_not_speak_of_clce(tmp_path):
    trainer = make_trainer(tmp_path, contrastive_weight=0.0)
    trainer.train()
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "README.md")
    assert "clce" not in card.data.tags
    assert "| loss | cross-entropy |" in card.text and "temperature" not in card.text
    trainer.create_model_card(pictures=True)
    assert "training_curve.png" in card_of(tmp_path).text
    assert not (tmp_path / "embeddings.png").exists()


def test_the_card_names_the_logit_adjustment(tmp_path):
    loss = LogitAdjustedLoss([8, 8, 8, 8], tau=0.5, label_smoothing=0.1)
    trainer = make_trainer(tmp_path)
    trainer.compute_loss_func = loss
    trainer.create_model_card()
    card = card_of(tmp_path).text
    assert "| logit adjustment (tau) | 0.5 |" in card and "| label smoothing | 0.1 |" in card


FORMULA = "| (1 - 0.9) cross-entropy + 0.9 contrastive |"


def doubled(outputs, labels, num_items_in_batch=None):
    return 2 * nn.functional.cross_entropy(outputs.logits, labels)


@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_the_card_does_not_take_a_function_of_the_loss_for_the_cross_entropy(tmp_path, weight):
    trainer = make_trainer(tmp_path, contrastive_weight=weight, label_smoothing_factor=0.2)
    trainer.compute_loss_func = doubled  # before which Trainer leaves out the smoothing
    trainer.evaluate()
    trainer.create_model_card()
    card = card_of(tmp_path)
    assert "`loss` is what `compute_loss_func` returned, without a contrastive term" in card.text
    assert "label smoothing" not in card.text
    assert "cross-entropy" not in card.text
    assert ("| (1 - 0.9) `compute_loss_func` + 0.9 contrastive |" in card.text) == (weight > 0)
    assert ("clce" in card.data.tags) == ("here, a loss of its own fused" in card.text)
    assert ("clce" in card.data.tags) == (weight > 0)


def test_the_card_says_that_labels_are_smoothed_in_evaluation_too(tmp_path):
    trainer = make_trainer(tmp_path, label_smoothing_factor=0.2)
    trainer.evaluate()
    trainer.create_model_card()
    text = card_of(tmp_path).text
    assert "`loss` is the cross-entropy alone, with a label smoothing of 0.2." in text
    assert "| label smoothing | 0.2 |" in text and FORMULA in text


class Contrasting(CLCETrainer):
    def compute_loss(self, *args, **named):
        return super().compute_loss(*args, **named)


class Plain(CLCETrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


@pytest.mark.parametrize("trainer_class", [Contrasting, Plain])
def test_the_card_of_a_loss_of_ones_own_says_what_was_measured(tmp_path, trainer_class):
    # Shorter than a log of its losses takes.
    trainer = make_trainer(tmp_path, label_names=["labels"], logging_steps=500)
    trainer.__class__ = trainer_class
    trainer.train()
    trainer.create_model_card()
    card = card_of(tmp_path)
    assert "`loss` is what `compute_loss` of a subclass of `CLCETrainer` returned." in card.text
    is_contrasted = trainer_class is Contrasting
    row = f"| of a subclass of CLCETrainer{f', from {FORMULA[2:]}' if is_contrasted else ' |'}"
    assert row in " ".join(card.text.split())
    clce = ("clce" in card.data.tags, "arXiv 2402.14551" in card.text, "(tau)" in card.text)
    assert set(clce) == {is_contrasted}
    assert ("with a loss of its own." in card.text) != is_contrasted


def test_pictures_are_drawn_when_they_are_asked_for(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.create_model_card()
    assert "pictures=True" in card_of(tmp_path).text and ".png" not in card_of(tmp_path).text
    assert not list(tmp_path.glob("*.png"))
    trainer.create_model_card(pictures=True)
    text = card_of(tmp_path).text
    for name in ("training_curve.png", "embeddings.png"):
        assert f"]({name})" in text and (tmp_path / name).stat().st_size > 1000
    assert "pictures=True" not in text


@pytest.mark.slow
def test_a_card_needs_no_extra_and_no_network(tmp_path):
    script = """
import sys
from pathlib import Path
for name in ("matplotlib", "sklearn"):
    sys.modules[name] = None
from support.pushing import make_trainer
trainer = make_trainer(Path(sys.argv[1]), max_steps=1)
trainer.train()
trainer.create_model_card()
try:
    trainer.create_model_card(pictures=True)
except ModuleNotFoundError as error:
    print(error)
"""
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
    }
    finished = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr
    assert 'pip install "clce_hf[reports]"' in finished.stdout
    assert "| temperature (tau) | 0.3 |" in card_of(tmp_path).text


def test_the_card_takes_the_arguments_of_trainer(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.create_model_card(
        license="mit", tags="birds", finetuned_from="bob/base", dataset_tags="bob/birds"
    )
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.base_model, data.datasets) == ("mit", "bob/base", ["bob/birds"])
    assert "birds" in data.tags and data.eval_results is None


def test_folders_are_not_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/base", "photos"):
        (tmp_path / folder).mkdir(parents=True)
    trainer = make_trainer(tmp_path / "run")
    named = {"license": "mit", "finetuned_from": "runs/base", "dataset_tags": "photos"}
    trainer.create_model_card(**named)
    data = card_of(tmp_path / "run").data
    assert (data.base_model, data.datasets) == (None, None)
    assert "runs/base" not in card_of(tmp_path / "run").text
    for folder in ("runs/base", "photos"):
        (tmp_path / folder).rmdir()
    trainer.create_model_card(**named)
    data = card_of(tmp_path / "run").data
    assert (data.base_model, data.datasets) == ("runs/base", ["photos"])


@pytest.mark.parametrize("best_step", [None, 2])
def test_the_card_reports_the_model_that_is_kept(best_step):
    history = [
        {"loss": 1.0, "step": 2, "epoch": 1},
        {"eval_loss": 0.5, "eval_accuracy": 0.8, "eval_runtime": 1.0, "step": 2, "epoch": 1},
        {"eval_loss": 0.7, "eval_accuracy": 0.7, "step": 4, "epoch": 2},
        {"train_runtime": 3.0, "step": 4, "epoch": 2},
    ]
    kept = {"loss": 0.7, "accuracy": 0.7} if best_step is None else {"loss": 0.5, "accuracy": 0.8}
    assert final_metrics(history, best_step) == kept
    after = {"eval_loss": 0.4, "eval_x": math.nan, "eval_samples_per_second": 9.0, "step": 4}
    assert final_metrics([*history, after], best_step) == {"loss": 0.4}
    assert final_metrics([], best_step) == {}


def test_the_card_holds_numbers_alone_whatever_their_names(tmp_path):
    values = {"top_5": 0.75, "errors": 3, "matrix": [[1, 2], [3, 4]], "note": "x", "none": None}
    trainer = make_trainer(tmp_path)
    trainer.compute_metrics = lambda _: {**values, "half": np.float32(0.5)}
    trainer.train()
    trainer.create_model_card()
    card = card_of(tmp_path)
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    numbers = {"top_5": 0.75, "errors": 3, "half": 0.5}
    assert {name: results[name] for name in numbers} == numbers
    assert results.keys() - numbers == {"loss", "contrastive_loss"}
    assert card.data.metrics == list(numbers)
    assert "| errors | 3 |" in card.text and "| top_5 | 0.7500 |" in card.text


def test_each_result_names_the_data_set_that_it_was_measured_on(published, tmp_path):
    splits = datasets.load_dataset("bob/animals", cache_dir=str(tmp_path / "cache"))
    pixels = torch.zeros(3, 16, 16)
    splits = splits.map(lambda row: {"pixel_values": pixels, "labels": row["label"]})
    trainer = make_trainer(tmp_path)
    trainer.train_dataset = splits["train"].with_format("torch")
    trainer.eval_dataset = {"noise": Images(8), "seen": splits["train"].with_format("torch")}
    trainer.train()
    trainer.create_model_card()
    results = {result.metric_name: result for result in card_of(tmp_path).data.eval_results}
    assert (results["noise_loss"].dataset_type, results["noise_loss"].dataset_split) == (
        *("Images", None),
    )
    assert results["seen_loss"].dataset_type == "bob/animals"
    trainer.evaluate(splits["test"].with_format("torch"))
    trainer.create_model_card()
    results = {result.metric_name: result for result in card_of(tmp_path).data.eval_results}
    assert results.keys() == {"loss", "contrastive_loss"}
    assert (results["loss"].dataset_type, results["loss"].dataset_split) == ("bob/animals", "test")
    trainer.evaluate()  # `noise_loss` begins like the metrics of the data set without a name, too
    trainer.create_model_card()
    results = {result.metric_name: result for result in card_of(tmp_path).data.eval_results}
    names = ("loss", "noise_loss", "seen_loss")
    assert [(results[name].dataset_type, results[name].dataset_split) for name in names] == [
        ("bob/animals", "test"),
        ("Images", None),
        ("bob/animals", "train"),
    ]


def test_a_model_that_was_only_evaluated_has_a_card(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.evaluate(Stream(16))
    trainer.create_model_card()
    card = card_of(tmp_path)
    assert card.data.eval_results[0].dataset_type == "Stream"
    assert "| 0 | 0 |" in card.text


class Own(nn.Module):
    """A classifier that is no model of Transformers."""

    def __init__(self, **names):
        super().__init__()
        self.config = None
        self.body = nn.Linear(3 * 16 * 16, 8)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, pixel_values, labels=None):
        return {"logits": self.head(self.body(pixel_values.flatten(1)))}


def test_a_custom_module_has_a_card(tmp_path):
    trainer = make_trainer(tmp_path, Own)
    trainer.train()
    trainer.create_model_card()
    text = card_of(tmp_path).text
    assert "for the class that it was trained with" in text and "pipeline" not in text
    trainer.create_model_card(pictures=True)
    assert (tmp_path / "embeddings.png").exists()


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # by PEFT
def test_the_card_of_an_adapter_says_how_to_load_it(hub, tmp_path):
    base = hub.create("bob/base")
    vit(num_labels=9).save_pretrained(tmp_path / "base")
    files = (tmp_path / "base").iterdir()
    base.files.update({file.name: file.read_bytes() for file in files})

    def build(**names):
        model = AutoModelForImageClassification.from_pretrained(
            "bob/base", ignore_mismatched_sizes=True, **names
        )
        lora = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"])
        return get_peft_model(model, lora)

    trainer = make_trainer(
        tmp_path / "run", build, label_names=["labels"], projection_dim=8, learning_rate=0.05
    )
    trainer.train()
    trainer.push_to_hub()
    pushed = repository(hub).files
    card = ModelCard(pushed["README.md"].decode())
    assert (card.data.library_name, card.data.base_model) == ("peft", "bob/base")
    assert "It loads with Transformers and PEFT" in card.text
    assert {"adapter_model.safetensors", "projection_head.safetensors"} <= pushed.keys()

    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8))
    image.save(tmp_path / "image.jpg")
    pixels = PROCESSOR(Image.open(tmp_path / "image.jpg"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        scores = trainer.model.eval()(pixels).logits[0].softmax(0)
    snippet = card.text.split("```python\n")[1].split("```")[0]
    printed, _ = run_without_the_package(snippet, cwd=tmp_path)
    classified = {found["label"]: found["score"] for found in eval(printed)}
    expected = dict(zip(CLASSES, scores.tolist(), strict=True))
    assert classified == pytest.approx(expected, abs=1e-5)


@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # by PEFT
def test_the_folder_of_a_base_is_in_the_adapter_alone_and_one_is_warned(hub, tmp_path):
    vit(**NAMES).save_pretrained(tmp_path / "base")

    def build(**_):
        model = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
        return get_peft_model(model, LoraConfig(target_modules=["q_proj"]))

    checkpoints = {"hub_strategy": "checkpoint", "save_strategy": "epoch", "hub_always_push": True}
    trainer = make_trainer(
        *(tmp_path / "run", build),
        **{"label_names": ["labels"], "projection_dim": 8, "push_to_hub": True, **checkpoints},
    )
    warning = r"names a base model that is not on the Hub.*peft_config\['default'\]"
    with pytest.warns(UserWarning, match=warning):
        trainer.train()
    with pytest.warns(UserWarning, match=warning):
        trainer.push_to_hub()
    path = str(tmp_path / "base").encode()
    pushed = repository(hub).files
    assert {name for name, content in pushed.items() if path in content} == {
        *("adapter_config.json", "last-checkpoint/adapter_config.json")
    }
    assert {"adapted_model/config.json", "last-checkpoint/adapted_model/config.json"} <= set(pushed)
    assert "last-checkpoint/README.md" in pushed  # which the Hub refuses with the name of a folder
    card = ModelCard(pushed["README.md"].decode())
    assert not [tag for tag in card.data.tags if tag.startswith("base_model:")]
    assert "# BASE_MODEL stands for the model that was adapted" in card.text

    # What the warning asks for is enough.
    trainer.model.peft_config["default"].base_model_name_or_path = "bob/base"
    trainer.push_to_hub()
    pushed = repository(hub).files
    card = ModelCard(pushed["README.md"].decode())
    assert card.data.base_model == "bob/base" and "BASE_MODEL" not in card.text
    assert path not in pushed["adapter_config.json"]


def test_the_card_has_the_batch_size_that_was_found(tmp_path):
    trainer = make_trainer(tmp_path, auto_find_batch_size=True, per_device_train_batch_size=5)
    forward = trainer.model.forward

    def out_of_memory(pixel_values, **named):
        if len(pixel_values) > 4 and trainer.model.training:
            raise RuntimeError("CUDA out of memory.")
        return forward(pixel_values, **named)

    trainer.model.forward = out_of_memory
    trainer.train()
    trainer.create_model_card()
    text = card_of(tmp_path).text
    assert "| images contrasted together | 4 |" in text
    assert "| 4 (4 per device, 1 process, 1 accumulated) |" in text


def test_the_card_says_what_was_calibrated_and_keeps_to_what_is_true_of_the_weights(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.compute_metrics = lambda _: {"accuracy": 0.75}
    trainer.eval_dataset = Images(120, seed=1)
    trainer.train()
    trainer.create_model_card()
    assert "Calibration" not in card_of(tmp_path).text
    with torch.no_grad():
        trainer.model.classifier.weight *= 8
    values = trainer.calibrate()
    assert "rejected_temperature" in trainer.calibrate()  # which changes nothing that is said
    trainer.create_model_card()
    card = card_of(tmp_path)
    row = "| negative log-likelihood | {:.4f} | {:.4f} |"
    numbers = [values[f"negative_log_likelihood_{when}"] for when in ("before", "after")]
    assert row.format(*numbers) in card.text
    assert f"a temperature of {values['calibration_temperature']:.3f}, fitted on 120" in card.text
    assert "those before, but for ties and rounding of weights in half precision" in card.text
    assert "equal size" not in card.text and "taken as they are" not in card.text
    assert "`loss` is the cross-entropy alone, measured before the calibration below" in card.text
    assert {result.metric_name for result in card.data.eval_results} == {
        *("accuracy", "contrastive_loss")
    }
    trainer.evaluate()
    trainer.create_model_card()
    card = card_of(tmp_path)
    assert "cross-entropy alone, measured after the calibration below: on the images" in card.text
    assert "fitted on, it is a little lower than on others" in card.text
    assert "loss" in {result.metric_name for result in card.data.eval_results}
    trainer.train()  # whose weights are others
    trainer.create_model_card()
    assert "Calibration" not in card_of(tmp_path).text


def test_the_card_says_that_the_model_was_left_as_it_was(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    images = Images(120, seed=1)
    trainer.calibrate(images)
    trainer.state.log_history.clear()
    trainer.evaluate()
    values = trainer.calibrate(images)
    trainer.create_model_card()
    card = card_of(tmp_path)
    told = "This calibration left the model as it was: a temperature (1.000, fitted on"
    assert f"## Calibration\n\n{told}" in card.text
    both = [values["negative_log_likelihood_before"], values["rejected_negative_log_likelihood"]]
    assert "likelihood is {:.4f}, and {:.4f} where".format(*both) in card.text
    assert "was divided" not in card.text and "the calibration below" not in card.text
    assert "loss" in {result.metric_name for result in card.data.eval_results}


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_the_card_says_whose_probabilities_those_of_adjusted_logits_are(tmp_path, tau):
    trainer = make_trainer(tmp_path)
    trainer.compute_loss_func = LogitAdjustedLoss([8, 8, 8, 8], tau=tau)
    trainer.train()
    with torch.no_grad():
        trainer.model.classifier.weight *= 8
    trainer.calibrate(Images(120, seed=1))
    trainer.create_model_card()
    text = card_of(tmp_path).text
    assert ("the probabilities are those for classes of equal size" in text) == (tau > 0)
