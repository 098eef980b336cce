"""A temperature that is fitted on held-out images, and stays in the saved model."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss
from support.beside_stock import Stream
from support.tiny import CLASSES, Images, SoftImages, config, logged, vit
from support.tiny_models import NUM_LABELS, TWO_HEADS
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    TrainerCallback,
    ViTImageProcessor,
    pipeline,
)

from clce_hf import CLCETrainer
from clce_hf.training.random_state import random_state

HELD_OUT = Images(160, seed=1)
PEFT_WARNS = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def sure(model=None, factor=8.0):
    """A model that is surer than it should be, since its classification layer is scaled."""
    model = model or vit()
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.mul_(factor)
    return model


def trainer_of(folder, model=None, train=None, held_out=HELD_OUT, **fields):
    args = config(folder, **{"max_steps": 12, "learning_rate": 3e-3, **fields})
    return CLCETrainer(
        model or sure(), args, train_dataset=train or Images(64), eval_dataset=held_out
    )


def logits_of(model, images=HELD_OUT):
    with torch.no_grad():
        return model.eval()(pixel_values=images.pixel_values).logits


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trainer after training, and its model as it was then."""
    trainer = trainer_of(tmp_path_factory.mktemp("run"), save_strategy="steps", save_steps=12)
    trainer.train()
    return trainer, copy.deepcopy(trainer.model)


@pytest.fixture
def again(trained):
    """The trainer, its model as it was after training."""
    trainer, model = trained
    trainer.model.load_state_dict(model.state_dict())
    return trainer


def test_held_out_images_are_more_likely_and_predictions_the_same(again):
    before = logits_of(again.model)
    values = again.calibrate()
    temperature = values["calibration_temperature"]
    after = logits_of(again.model)
    torch.testing.assert_close(after, before / temperature)
    assert torch.equal(after.argmax(1), before.argmax(1))
    assert logged(again, "calibration_temperature") == [temperature]
    best = minimize_scalar(
        lambda t: log_loss(HELD_OUT.targets, (before.double() / t).softmax(1).numpy()),
        bounds=(0.1, 50),
        method="bounded",
    )
    assert temperature == pytest.approx(best.x, rel=0.02)
    assert values["calibration_images"] == len(HELD_OUT)
    before_loss = log_loss(HELD_OUT.targets, before.double().softmax(1).numpy())
    assert values["negative_log_likelihood_before"] == pytest.approx(before_loss)
    assert values["negative_log_likelihood_after"] < before_loss - 0.02
    assert values["calibration_error_after"] < values["calibration_error_before"]
    # Fitted on the very images, it looks better than it is.
    assert (
        log_loss(HELD_OUT.targets, after.double().softmax(1).numpy())
        < values["negative_log_likelihood_after"]
    )


def test_a_second_call_leaves_the_model_as_it_was_and_says_so(again, caplog):
    again.calibrate()
    assert "left as it was" not in caplog.text
    before = logits_of(again.model)
    values = again.calibrate()
    assert torch.equal(logits_of(again.model), before)
    assert values["calibration_temperature"] == 1.0
    assert values["rejected_temperature"] == pytest.approx(1.0, abs=1e-5)
    likelihood = values["negative_log_likelihood_before"]
    assert values["rejected_negative_log_likelihood"] > likelihood
    assert values["negative_log_likelihood_after"] == likelihood
    assert "left as it was, since a temperature makes held-out images no likelier" in caplog.text
    assert logged(again, "rejected_temperature") == [values["rejected_temperature"]]


def test_the_saved_model_is_calibrated_without_this_package(again, tmp_path):
    again.model.config.id2label = dict(enumerate(CLASSES))
    before = logits_of(again.model)
    temperature = again.calibrate()["calibration_temperature"]
    again.save_model(str(tmp_path))
    stock, info = AutoModelForImageClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values())
    torch.testing.assert_close(logits_of(stock), before / temperature)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    classify = pipeline("image-classification", model=str(tmp_path), device="cpu", top_k=4)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    found = {entry["label"]: entry["score"] for entry in classify(image)}
    pixels = classify.image_processor(image, return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = (again.model(pixel_values=pixels).logits).softmax(1)[0]
    assert [found[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-6)


def test_checkpoints_stay_as_they_were(again, trained):
    again.calibrate()
    folder = f"{again.args.output_dir}/checkpoint-12"
    stock = AutoModelForImageClassification.from_pretrained(folder)
    assert torch.equal(logits_of(stock), logits_of(trained[1]))


def test_a_resumed_run_goes_on_from_the_weights_before(tmp_path):
    fields = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer_of(tmp_path / "whole", **fields)
    whole.train()
    stopped = trainer_of(tmp_path / "stopped", **fields)
    stopped.train()
    stopped.calibrate()
    stopped.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-2"))
    for ours, theirs in zip(stopped.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_goes_on_from_the_calibrated_weights(again, tmp_path):
    again.calibrate()
    more = trainer_of(tmp_path, copy.deepcopy(again.model), max_steps=1, learning_rate=0.0)
    more.train()
    assert torch.equal(logits_of(more.model), logits_of(again.model))


def test_the_best_model_is_the_one_that_is_calibrated(tmp_path):
    trainer = trainer_of(
        tmp_path,
        max_steps=3,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # so that the last step is not the best
    )
    trainer.train()
    assert trainer.state.best_global_step == 1
    best = AutoModelForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    temperature = trainer.calibrate()["calibration_temperature"]
    torch.testing.assert_close(logits_of(trainer.model), logits_of(best) / temperature)


def test_nothing_else_is_disturbed(again):
    again.model.train()
    again.model.vit.layernorm.eval()
    modes = {name: module.training for name, module in again.model.named_modules()}
    weights = {name: value.clone() for name, value in again.model.named_parameters()}
    state = random_state()
    again.calibrate()
    assert modes == {name: module.training for name, module in again.model.named_modules()}
    assert torch.equal(state["torch"], random_state()["torch"])
    assert state["python"] == random_state()["python"]
    assert not any(module._forward_hooks for module in again.model.modules())
    changed = {n for n, v in again.model.named_parameters() if not torch.equal(v, weights[n])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_images_without_a_class_are_left_out(again):
    rows = [HELD_OUT[i] for i in range(len(HELD_OUT))]
    again.calibrate(rows)
    unlabeled = [{**row, "labels": -100} for row in rows[:20]]
    values = again.calibrate(unlabeled + rows)
    assert values["calibration_images"] == len(rows)
    assert values["rejected_temperature"] == pytest.approx(1.0, abs=1e-5)


def test_a_stream_is_as_good(again):
    assert again.calibrate(Stream(160))["calibration_images"] == 160


def test_one_of_several_data_sets_is_named(tmp_path):
    several = {"near": HELD_OUT, "far": Images(100, seed=2)}
    trainer = trainer_of(tmp_path, held_out=several)
    trainer.train()
    with pytest.raises(ValueError, match=r"one data set, and there are 'near', 'far': name one"):
        trainer.calibrate()
    with pytest.raises(ValueError, match="'near', 'far'"):
        trainer.calibrate("nowhere")
    assert trainer.calibrate("far")["calibration_images"] == 100


@pytest.mark.parametrize("held_out", [None, HELD_OUT, Stream(160)])
def test_a_name_without_named_data_sets_is_refused(tmp_path, held_out):
    with pytest.raises(ValueError, match="'far', but eval_dataset is not a dict") as error:
        trainer_of(tmp_path, held_out=held_out).calibrate("far")
    assert len(str(error.value)) < 200


def test_no_image_is_dropped(tmp_path):
    several = {"near": HELD_OUT, "few": Images(100, seed=2)}
    trainer = trainer_of(
        tmp_path,
        held_out=several,
        dataloader_drop_last=True,
        per_device_eval_batch_size=128,
    )
    assert trainer.calibrate("near")["calibration_images"] == 160
    assert trainer.calibrate("few")["calibration_images"] == 100  # less than a batch
    assert trainer.calibrate(HELD_OUT)["calibration_images"] == 160
    assert trainer.args.dataloader_drop_last


class NotFinite(Images):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {**row, "pixel_values": row["pixel_values"] * (float("nan") if index == 90 else 1)}


def of_class(label):
    return [{**HELD_OUT[i], "labels": label} for i in range(120)]


REFUSED = {
    "too few": (Images(99), r"99 labeled ones are too few: give it 100"),
    "none": ([], r"0 labeled ones are too few|holds none"),
    "unlabeled": (of_class(-100), r"0 labeled ones are too few"),
    "one class": (of_class(2), r"all of these are of class 2"),
    "a class too many": (of_class(4), r"label of the images to calibrate on is 4.*num_labels=4"),
    "soft": (SoftImages(120), r"class probabilities: give it images that are not mixed"),
    "not finite": (NotFinite(120), r"some are not finite"),
    "no labels": (
        [{"pixel_values": HELD_OUT[i]["pixel_values"]} for i in range(120)],
        r"holds no labels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_images_that_tell_no_temperature_are_refused(again, trained, name):
    images, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        again.calibrate(images)
    assert torch.equal(logits_of(again.model), logits_of(trained[1]))


def test_labels_that_are_numbered_otherwise_are_refused(again):
    wrong = logits_of(again.model).argmin(1)
    rows = [{**HELD_OUT[i], "labels": int(wrong[i])} for i in range(len(HELD_OUT))]
    with pytest.raises(ValueError, match="labels are numbered as its classes are"):
        again.calibrate(rows)


def test_without_held_out_images(tmp_path):
    with pytest.raises(ValueError, match="there is no eval_dataset"):
        trainer_of(tmp_path, held_out=None).calibrate()


def test_during_training_it_is_refused(tmp_path):
    class Calibrate(TrainerCallback):
        def on_step_end(self, *args, **named):
            trainer.calibrate()

    trainer = trainer_of(tmp_path)
    trainer.add_callback(Calibrate())
    with pytest.raises(ValueError, match=r"after train\(\)"):
        trainer.train()


def test_after_a_training_that_was_interrupted(tmp_path):
    class Interrupt(TrainerCallback):
        def on_step_end(self, *args, **named):
            raise KeyboardInterrupt

    trainer = trainer_of(tmp_path)
    trainer.add_callback(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.calibrate()["calibration_images"] == 160


def test_weights_that_diverged_are_named(tmp_path):
    trainer = trainer_of(tmp_path)
    with torch.no_grad():
        trainer.model.classifier.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"nor are the weights classifier\.bias: .*learning_rate"):
        trainer.calibrate()


@PEFT_WARNS
def test_of_an_adapter_the_head_that_it_saves(tmp_path):
    vit().save_pretrained(tmp_path / "base")
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    lora = LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])
    trainer = trainer_of(tmp_path / "run", get_peft_model(base, lora), label_names=["labels"])
    trainer.train()
    before = logits_of(trainer.model)
    temperature = trainer.calibrate()["calibration_temperature"]
    assert abs(temperature - 1) > 0.05
    trainer.save_model()
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    loaded = PeftModel.from_pretrained(base, tmp_path / "run")
    torch.testing.assert_close(logits_of(loaded), before / temperature)


@PEFT_WARNS
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj"], "'base_model.model.classifier', but PEFT does not save it"),
        (["q_proj", "classifier"], "put the layer into modules_to_save"),
    ],
)
def test_an_adapter_without_a_trained_head_is_refused(tmp_path, targets, message):
    model = get_peft_model(vit(), LoraConfig(target_modules=targets))
    trainer = trainer_of(tmp_path, model, label_names=["labels"])
    with pytest.raises(ValueError, match=message):
        trainer.calibrate()


def rows_of(tiny, n=100):
    batch = tiny.batch(n)
    rows = [{name: values[i] for name, values in batch.items()} for i in range(n)]
    return [{**row, "labels": i % NUM_LABELS} for i, row in enumerate(rows)]


@pytest.mark.parametrize("tiny", TWO_HEADS, ids=lambda tiny: tiny.name)
@pytest.mark.parametrize("is_named", [False, True])
def test_two_averaged_heads_are_refused(tmp_path, tiny, is_named):
    torch.manual_seed(0)
    model = tiny.build()
    weights = copy.deepcopy(model.state_dict())
    layer = tiny.layer if is_named else None
    trainer = trainer_of(tmp_path, model, held_out=rows_of(tiny), classification_layer=layer)
    with pytest.raises(ValueError, match=r"two heads.*there are .*, .*classification_layer"):
        trainer.calibrate()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


class Normalized(nn.Module):
    """A model whose logits do not depend on the size of its layer's output."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(768, 4)

    def forward(self, pixel_values):
        return {"logits": 8 * nn.functional.normalize(self.layer(pixel_values.flatten(1)))}


def test_a_model_that_normalizes_after_its_layer_is_refused(tmp_path):
    trainer = trainer_of(
        tmp_path, Normalized(), classification_layer="layer", contrastive_weight=0.0
    )
    with pytest.raises(ValueError, match=r"'layer'.*scaled or normalized after"):
        trainer.calibrate()


def test_a_layer_that_is_not_one_linear_map_is_refused(tmp_path):
    model = vit()
    model.classifier = nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 4))
    with pytest.raises(ValueError, match=r"'classifier' is a Sequential"):
        trainer_of(tmp_path, model, classification_layer="classifier").calibrate()
