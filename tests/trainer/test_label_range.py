"""A class id that the model does not have is named, before training where that is certain."""

from contextlib import nullcontext

import datasets
import pytest
import torch
import torch.nn.functional as F
from support.tiny import Images, config, logged, vit
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import ConcatDataset
from transformers import TrainerCallback, ViTForImageClassification, default_data_collator

from clce_hf import CLCETrainer


class Numbered(Images):
    """Images whose last label is given."""

    def __init__(self, last, n=16):
        super().__init__(n)
        self.targets[-1] = last


def as_rows(images):
    return [images[i] for i in range(len(images))]


def as_table(images, **columns):
    columns |= {"pixel_values": images.pixel_values.tolist()}
    return datasets.Dataset.from_dict(columns).with_format("torch")


class Untrained(TrainerCallback):
    """Fails where a run begins."""

    def on_train_begin(self, args, state, control, **kwargs):
        raise AssertionError("training began")


NAMED = r"A label.* is {}, but the model has num_labels=4, so class ids must lie in \[0, 4\)"


@pytest.mark.parametrize("weight", [0.0, 0.9])
@pytest.mark.parametrize("label", [4, -1, 255])
@pytest.mark.parametrize("fields", [{}, {"projection_dim": 8}, {"cached_mini_batch_size": 4}])
def test_a_label_of_a_batch(tmp_path, label, weight, fields):
    args = config(tmp_path, contrastive_weight=weight, **fields)
    trainer = CLCETrainer(vit(), args, train_dataset=Numbered(label))
    with pytest.raises(ValueError, match=NAMED.format(label)):
        trainer.train()


@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_a_label_of_an_evaluation(tmp_path, weight):
    trainer = CLCETrainer(vit(), config(tmp_path, contrastive_weight=weight))
    with pytest.raises(ValueError, match=NAMED.format(7)):
        trainer.evaluate(Numbered(7))
    assert trainer.evaluate(Numbered(-100))["eval_loss"] > 0


@pytest.mark.parametrize("name", ["labels", "label", "label_ids"])
def test_a_stored_label_is_found_before_training(tmp_path, name):
    images = Numbered(9)
    for data in (as_table(images, **{name: images.targets}), as_rows(images)):
        trainer = CLCETrainer(vit(), config(tmp_path), train_dataset=data, callbacks=[Untrained()])
        with pytest.raises(ValueError, match=NAMED.format(9)):
            trainer.train()


def test_a_stored_label_by_another_name(tmp_path):
    images = Numbered(9)
    rows = as_table(images, fine=images.targets, label=[0] * 16)
    args = config(tmp_path, label_names=["fine"])
    with pytest.raises(ValueError, match=r"A label of the training data, in 'fine', is 9"):
        CLCETrainer(vit(), args, train_dataset=rows, callbacks=[Untrained()]).train()


class Renumbers(CLCETrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = {**inputs, "labels": inputs["labels"] % 4}
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)


def ordinal(outputs, labels, num_items_in_batch=None):
    """As many thresholds as there are logits, and so one class more."""
    above = (labels[:, None] > torch.arange(4)).float()
    return F.binary_cross_entropy_with_logits(outputs.logits, above)


def test_labels_that_are_changed_on_their_way_are_left_alone(tmp_path):
    images = Numbered(9)
    rows = as_table(images, label=images.targets)
    Renumbers(vit(), config(tmp_path), train_dataset=rows).train()
    renumber = rows.with_transform(
        lambda rows: {**rows, "label": [int(i) % 4 for i in rows["label"]]}
    )
    assert len(logged(trained(tmp_path, renumber), "loss")) == 3


class OwnHead(ViTForImageClassification):
    """Four classes, of which its config knows nothing."""

    def __init__(self, config):
        super().__init__(config)
        self.classifier = nn.Linear(32, 4)


def test_a_config_of_another_head_is_no_limit(tmp_path):
    images = Images(24)
    model = OwnHead(vit(num_labels=2).config)
    args = config(tmp_path, classification_layer="classifier")
    trainer = CLCETrainer(model, args, train_dataset=as_table(images, label=images.targets))
    trainer.train()
    assert len(logged(trainer, "loss")) == 3


def test_a_column_that_is_not_trained_is_no_limit(tmp_path):
    images = Images(24)
    soft = torch.eye(4)[torch.tensor(images.targets)].tolist()
    rows = as_table(images, labels=soft, label=list(range(24)))
    assert len(logged(trained(tmp_path, rows), "loss")) == 3


def trained(folder, data, **named):
    trainer = CLCETrainer(vit(), config(folder), train_dataset=data, **named)
    trainer.train()
    return trainer


def test_a_loss_of_ones_own_has_its_own_classes(tmp_path):
    images = Numbered(4)
    for data in (as_table(images, label=images.targets), images):
        trained(tmp_path, data, compute_loss_func=ordinal)


def test_images_without_a_class(tmp_path):
    images = Numbered(-100)
    trained(tmp_path, as_table(images, label=images.targets))
    trained(tmp_path, ConcatDataset([images, Images(8)]))


class Watch(TorchDispatchMode):
    """Counts how often Python waits for a value, and keeps the labels that losses are given."""

    def __init__(self):
        super().__init__()
        self.waits, self.labels = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.waits += func is torch.ops.aten._local_scalar_dense.default
        if func is torch.ops.aten.nll_loss_forward.default:
            self.labels += args[1].tolist()
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_a_step_waits_for_its_device_once_and_kernels_see_no_wrong_label(tmp_path, weight):
    args = config(tmp_path, contrastive_weight=weight)
    for label in (3, 9):
        images = Numbered(label, n=8)
        trainer = CLCETrainer(vit(), args, train_dataset=images)
        batch = default_data_collator([images[i] for i in range(8)])
        trainer.compute_loss(trainer.model.train(), dict(batch, labels=torch.arange(8) % 4))
        refused = pytest.raises(ValueError, match=NAMED.format(9)) if label == 9 else nullcontext()
        with Watch() as watch, refused:
            trainer.compute_loss(trainer.model.train(), batch)
        assert watch.waits == 1 or label == 9
        assert set(watch.labels) <= {0, 1, 2, 3, -100} and len(watch.labels) == 8


def test_labels_are_a_tensor(tmp_path):
    def collate(rows):
        pixels = torch.stack([row["pixel_values"] for row in rows])
        return {"pixel_values": pixels, "labels": [row["labels"] for row in rows]}

    with pytest.raises(ValueError, match=r"labels of a batch, under 'labels', must be a tensor"):
        trained(tmp_path, Images(16), data_collator=collate)
