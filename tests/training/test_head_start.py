"""Runs whose classification layer starts from class means."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset as HubDataset
from peft import LoraConfig, get_peft_model
from support.tiny import NUM_CLASSES, Images, SoftImages, StopAt, config, logged, vit
from support.tiny_models import TINY_MODELS
from support.training import assert_same_weights
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import TrainerCallback, TrainingArguments

from clce_hf import CLCETrainer
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.head_init import class_mean_weights

CLASS_MEANS = {"head_init": "class_means"}
PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
BY_NAME = {model.name: model for model in TINY_MODELS}


class AtStart(TrainerCallback):
    """Keeps the weights, the buffers and the random numbers at the start of a run."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        # In the order that draws none of the other two.
        self.random = [random.getstate(), np.random.get_state()[1].tolist()]
        self.random.append(torch.get_rng_state().tolist())


def started(folder, model, images=None, callbacks=(), **fields):
    """Train for a step, and return the trainer and what was there at its start."""
    start = AtStart()
    args = config(folder, **{**CLASS_MEANS, "max_steps": 1, **fields})
    data = Images(64) if images is None else images
    trainer = CLCETrainer(model, args, train_dataset=data, callbacks=[start, *callbacks])
    trainer.train()
    return trainer, start


def embeddings_of(model, images):
    with EmbeddingCapture(model) as capture, torch.no_grad():
        embeddings = capture.run(model.eval(), {"pixel_values": images.pixel_values})[1]
    return embeddings


def accuracy(model, images):
    with torch.no_grad():
        predicted = model.eval()(images.pixel_values).logits.argmax(1)
    return float((predicted == torch.tensor(images.targets)).float().mean())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"contrastive_weight": 0.0},
        {"projection_dim": 8},
        {"dataloader_drop_last": True, "per_device_eval_batch_size": 25},
        {"dataloader_num_workers": 1},
        {"samples_per_class": 2},
    ],
    ids=str,
)
def test_the_layer_starts_from_the_class_means(tmp_path, fields):
    images = Images(64)
    expected = class_mean_weights(embeddings_of(vit(), images), torch.tensor(images.targets), 4)
    _, start = started(tmp_path, vit(), images, **fields)
    for name, value in zip(("weight", "bias"), expected, strict=True):
        torch.testing.assert_close(start.weights[f"classifier.{name}"], value, rtol=1e-3, atol=1e-5)
    others = {name: value for name, value in vit().state_dict().items() if "classifier" not in name}
    assert all(torch.equal(start.weights[name], value) for name, value in others.items())


def colored(seed):
    """Images in the color of their class, with little noise."""
    images = Images(64, seed)
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])[images.targets]
    images.pixel_values = 0.1 * images.pixel_values + colors[:, :, None, None]
    return images


def test_it_tells_classes_before_the_first_step(tmp_path):
    images, new = colored(0), colored(1)
    cold, _ = started(tmp_path, vit(), images, head_init=None, learning_rate=0.0)
    warm, _ = started(tmp_path, vit(), images, learning_rate=0.0)
    assert accuracy(cold.model, new) < 0.4
    assert accuracy(warm.model, new) > 0.9


class Unsteady(Images):
    """Draws random numbers of every kind for each image, as augmentation does."""

    def __getitem__(self, index):
        row = super().__getitem__(index)
        noise = random.random() + np.random.rand() + float(torch.rand(1))
        return {**row, "pixel_values": row["pixel_values"] + noise}


@pytest.mark.parametrize("images", [Images, Unsteady, SoftImages])
def test_the_random_numbers_of_the_run_stay_those_without_it(tmp_path, images):
    found = []
    for head_init in (None, "class_means"):
        model = vit(hidden_dropout_prob=0.2)
        _, start = started(tmp_path, model, images(64), head_init=head_init)
        found.append(start)
    without, with_it = found
    assert with_it.random == without.random
    head = "classifier.weight"
    assert not torch.equal(with_it.weights[head], without.weights[head])


class Rows(list):
    """Rows with readable labels."""

    @property
    def targets(self):
        return [row["labels"] for row in self]


@pytest.mark.parametrize("name", ["resnet", "timm-efficientnet", "imagegpt"])
def test_nothing_but_the_layer_changes(tmp_path, name):
    tiny = BY_NAME[name]
    model = tiny.build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    batch = tiny.batch(12)
    rows = [{k: v[i] for k, v in batch.items()} | {"labels": i % 3} for i in range(12)]

    hooks = count_hooks(model)
    trainer, start = started(tmp_path, model, Rows(rows), contrastive_weight=0.0)
    changed = {key for key, value in before.items() if not torch.equal(start.weights[key], value)}
    assert changed <= {f"{tiny.layer}.weight", f"{tiny.layer}.bias"} and changed
    assert count_hooks(trainer.model) == hooks


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    def run(folder, stop=None, resume=None):
        fields = {**CLASS_MEANS, "max_steps": 5, "save_strategy": "steps", "save_steps": 1}
        trainer = CLCETrainer(
            vit(hidden_dropout_prob=0.2),
            config(tmp_path / folder, **fields),
            train_dataset=Images(29),
            callbacks=[StopAt(stop)] if stop else [],
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run("whole")
    run("cut", stop=2)
    for resume in (str(tmp_path / "cut" / "checkpoint-2"), True):
        resumed = run("cut", resume=resume)
        assert_same_weights(resumed.model, whole.model)
        if resume is not True:  # which had gone on to the end before
            assert logged(resumed, "loss") == logged(whole, "loss")


def test_each_model_of_model_init_has_its_start(tmp_path):
    args = config(tmp_path, **CLASS_MEANS)
    start = AtStart()
    trainer = CLCETrainer(
        args=args, model_init=lambda: vit(), train_dataset=Images(), callbacks=[start]
    )
    trainer.train()
    first = start.weights
    trainer.train()
    assert all(torch.equal(value, first[name]) for name, value in start.weights.items())
    assert not torch.equal(first["classifier.weight"], vit().classifier.weight)


@PEFT_WARNS
def test_the_trained_copy_of_peft_is_set(tmp_path):
    settings = LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    model = get_peft_model(vit(), settings)
    _, start = started(tmp_path, model, label_names=["labels"])
    found = {name.split(".classifier.")[-1]: v for name, v in start.weights.items()}
    images = Images(64)
    weight, _ = class_mean_weights(embeddings_of(vit(), images), torch.tensor(images.targets), 4)
    copy = found["modules_to_save.default.weight"]
    torch.testing.assert_close(copy, weight, rtol=1e-3, atol=1e-5)
    assert torch.equal(found["original_module.weight"], vit().classifier.weight)


@PEFT_WARNS
def test_a_layer_with_an_adapter_is_refused(tmp_path):
    model = get_peft_model(vit(), LoraConfig(target_modules=["q_proj", "classifier"]))
    with pytest.raises(ValueError, match=r"head_init='class_means'.*modules_to_save"):
        started(tmp_path, model, label_names=["labels"])


@PEFT_WARNS
def test_a_layer_that_peft_does_not_save_is_refused(tmp_path):
    model = get_peft_model(vit(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match=r"PEFT does not save it.*modules_to_save"):
        started(tmp_path, model, label_names=["labels"])


def test_labels_of_two_kinds_and_images_without_one(tmp_path):
    read = []

    def collate(rows):
        pixels = torch.stack([row["pixel_values"] for row in rows])
        labels = torch.tensor([row["labels"] for row in rows])
        if read:
            labels = F.one_hot(labels, NUM_CLASSES).float()
        else:
            labels[:2] = -100
        read.append((pixels, labels))
        return {"pixel_values": pixels, "labels": labels}

    start = AtStart()
    args = config(tmp_path, **CLASS_MEANS, max_steps=1)
    CLCETrainer(vit(), args, collate, Images(64), callbacks=[start]).train()
    pixels = torch.cat([pixels for pixels, _ in read[: 64 // 8]])[2:]
    ids = [read[0][1][2:], *(labels.argmax(1) for _, labels in read[1 : 64 // 8])]
    images = SimpleNamespace(pixel_values=pixels)
    weight, _ = class_mean_weights(embeddings_of(vit(), images), torch.cat(ids), NUM_CLASSES)
    torch.testing.assert_close(start.weights["classifier.weight"], weight, rtol=1e-3, atol=1e-5)


def test_embeddings_must_be_finite(tmp_path):
    images = Images(64)
    images.pixel_values[5] = torch.nan
    with pytest.raises(ValueError, match=r"head_init.*not finite: check the images for NaN"):
        started(tmp_path, vit(), images)


def test_columns_of_a_data_set_and_soft_labels(tmp_path):
    images = Images(64)
    columns = {"pixel_values": images.pixel_values.tolist(), "labels": images.targets}
    data = HubDataset.from_dict({**columns, "file": ["a.png"] * 64}).with_format("torch")
    _, hard = started(tmp_path, vit(), images)
    _, stored = started(tmp_path, vit(), data)
    _, soft = started(tmp_path, vit(), SoftImages(64))
    head = "classifier.weight"
    torch.testing.assert_close(stored.weights[head], hard.weights[head], rtol=1e-3, atol=1e-5)
    targets = torch.stack([SoftImages(64)[i]["labels"] for i in range(64)])
    expected, _ = class_mean_weights(embeddings_of(vit(), images), targets, NUM_CLASSES)
    torch.testing.assert_close(soft.weights[head], expected, rtol=1e-3, atol=1e-5)


def test_at_most_fifty_images_of_a_class_are_read(tmp_path):
    read = []

    class Counted(Images):
        def __getitem__(self, index):
            read.append(self.targets[index])
            return super().__getitem__(index)

    class Stop(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.seen = torch.tensor(read).bincount().tolist()

    stop = Stop()
    images = Counted(400, num_classes=3)
    images.targets[:20] = [3] * 20
    started(tmp_path, vit(), images, [stop])
    assert stop.seen == [50, 50, 50, 20]


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Images()[i] for i in range(16))


@pytest.mark.parametrize(
    "data", [Stream(), [Images()[i] for i in range(16)]], ids=["stream", "list"]
)
def test_labels_must_be_readable(tmp_path, data):
    message = "head_init needs training data with a length and readable labels, got"
    with pytest.raises(ValueError, match=message):
        started(tmp_path, vit(), data)


def test_plain_arguments_start_from_the_layer_as_it_is(tmp_path):
    args = config(tmp_path, TrainingArguments, max_steps=1)
    start = AtStart()
    CLCETrainer(vit(), args, train_dataset=Images(), callbacks=[start]).train()
    assert torch.equal(start.weights["classifier.weight"], vit().classifier.weight)


def test_the_card_says_it(tmp_path):
    for head_init, said in ((None, None), ("class_means", "class means of the embeddings")):
        trainer = CLCETrainer(vit(), config(tmp_path, head_init=head_init))
        assert trainer.card_settings().get("head start") == said
