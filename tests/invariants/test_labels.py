"""Training data whose labels are not what they seem, stock Trainer beside CLCETrainer."""

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from support.beside_stock import both, make
from support.tiny import CLASSES, NUM_CLASSES, Images, logged
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from transformers import default_data_collator

from clce_hf import CLCETrainer

IMAGES = Images(24)
IDS = IMAGES.targets
NAMES = [CLASSES[i] for i in IDS]


class Attributed(Dataset):
    """Images with attributes that look like labels and are none."""

    def __init__(self, **attributes):
        vars(self).update(attributes)

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        return IMAGES[index]


class Computed(Attributed):
    @property
    def labels(self):
        raise RuntimeError("somebody asked for labels, which takes an hour")

    def targets(self, index):
        return IDS[index]


ATTRIBUTED = {
    "names of the classes": {"labels": CLASSES},
    "names of the rows": {"targets": NAMES},
    "a dict": {"label": dict(enumerate(IDS))},
    "a series": {"targets": pd.Series(IDS, index=range(100, 124))},
    "a series of names": {"labels": pd.Series(NAMES)},
    "one-hot rows": {"targets": torch.eye(NUM_CLASSES)[IDS]},
    "whole one-hot rows": {"labels": torch.eye(NUM_CLASSES, dtype=torch.long)[IDS]},
    "metadata": {"targets": np.arange(72).reshape(24, 3)},
    "a frame": {"targets": pd.DataFrame({"class": NAMES, "age": range(24)})},
    "a column": {"labels": np.array(IDS)[:, None]},
    "ragged lists": {"targets": [[i] * (i + 1) for i in IDS]},
    "too few": {"targets": IDS[:10]},
    "too many": {"targets": IDS * 2},
    "a constant": {"targets": [0] * 24},
    "floats": {"targets": [float(i) for i in IDS]},
    "bools": {"targets": [i > 1 for i in IDS]},
    "ids from 100": {"targets": [100 + i for i in IDS]},
    "a number": {"targets": 4},
}


def table(**columns):
    return datasets.Dataset.from_dict({"row": list(range(24)), **columns})


def as_pixels(ids):
    """A transform that makes pixels, and labels of the ids of a row."""

    def transform(rows):
        return {
            "pixel_values": [IMAGES.pixel_values[row] for row in rows["row"]],
            "labels": [ids({k: v[i] for k, v in rows.items()}) for i in range(len(rows["row"]))],
        }

    return transform


TRANSFORMED = {
    "strings": (table(label=NAMES), lambda row: CLASSES.index(row["label"])),
    "bools": (table(label=[i > 1 for i in IDS]), lambda row: int(row["label"])),
    "floats": (table(label=[i / 2 for i in IDS]), lambda row: int(2 * row["label"])),
    "missing": (table(label=[i or None for i in IDS]), lambda row: row["label"] or 0),
    "lists": (table(labels=[[i, 1] for i in IDS]), lambda row: row["labels"][0]),
    "ids from 10": (table(label=[10 + i for i in IDS]), lambda row: row["label"] - 10),
    "a constant": (table(label=[7] * 24, species=IDS), lambda row: row["species"]),
    "one class": (table(label=[0] * 24), lambda row: row["label"]),
}


def losses(trainer):
    trainer.train()
    return logged(trainer, "loss")


def assert_trains_as_stock(folder, train, **fields):
    """With cross-entropy alone, to the last digit; with CLCE, from the same cross-entropy on."""
    fields = {"train": train, "remove_unused_columns": False, "num_train_epochs": 1, **fields}
    stock = both(folder, losses, contrastive_weight=0.0, **fields)
    assert len(stock) == 3
    ours = make(CLCETrainer, folder / "clce", **fields)
    ours.train()
    assert logged(ours, "ce_loss")[0] == pytest.approx(stock[0], rel=1e-5)


@pytest.mark.parametrize("attributes", ATTRIBUTED.values(), ids=ATTRIBUTED.keys())
def test_attributes_that_look_like_labels(tmp_path, attributes):
    assert_trains_as_stock(tmp_path, Attributed(**attributes))


def test_methods_and_properties_that_look_like_labels(tmp_path):
    assert_trains_as_stock(tmp_path, Computed())


@pytest.mark.parametrize(("rows", "ids"), TRANSFORMED.values(), ids=TRANSFORMED.keys())
def test_columns_that_a_transform_maps(tmp_path, rows, ids):
    assert_trains_as_stock(tmp_path, rows.with_transform(as_pixels(ids)))


@pytest.mark.parametrize(("rows", "ids"), TRANSFORMED.values(), ids=TRANSFORMED.keys())
def test_columns_that_the_collator_maps(tmp_path, rows, ids):
    def collate(batch):
        return {
            "pixel_values": torch.stack([IMAGES.pixel_values[row["row"]] for row in batch]),
            "labels": torch.tensor([ids(row) for row in batch]),
        }

    assert_trains_as_stock(tmp_path, rows, data_collator=collate)


def pairs(batch):
    pixels, labels = zip(*batch, strict=True)
    return {"pixel_values": torch.stack(pixels), "labels": torch.tensor(labels)}


OTHERS = {
    "dicts": [IMAGES[i] for i in range(24)],
    "a tuple of dicts": tuple(IMAGES[i] for i in range(24)),
    "pairs": [(IMAGES.pixel_values[i], IDS[i]) for i in range(24)],
    "tensors": TensorDataset(IMAGES.pixel_values, torch.tensor(IDS)),
    "a part": Subset(Attributed(targets=IDS[:5]), list(range(24))),
    "parts": ConcatDataset([Subset(IMAGES, range(8)), Attributed(labels=CLASSES)]),
}


@pytest.mark.parametrize("train", OTHERS.values(), ids=OTHERS.keys())
def test_other_data_sets(tmp_path, train):
    collate = default_data_collator if isinstance(train[0], dict) else pairs
    if len(train) > 24:
        train = Subset(train, range(24))
    assert_trains_as_stock(tmp_path, train, data_collator=collate)


def test_bools_of_a_plain_list(tmp_path):
    rows = [{"pixel_values": IMAGES.pixel_values[i], "label": IDS[i] > 1} for i in range(24)]
    assert_trains_as_stock(tmp_path, rows)


def test_labels_by_the_name_of_their_column(tmp_path):
    """Stock Trainer has no loss for them; with the default collator, CLCETrainer does."""
    rows = datasets.Dataset.from_dict(
        {
            "pixel_values": IMAGES.pixel_values.tolist(),
            "fine_label": IDS,
            "coarse_label": [i // 2 for i in IDS],
            "label": [9] * 24,
        }
    ).with_format("torch")
    renamed = rows.remove_columns(["coarse_label", "label"]).rename_column("fine_label", "labels")
    expected = losses(make(CLCETrainer, tmp_path, train=renamed))
    named = {"label_names": ["fine_label"], "train": rows, "held_out": rows}
    trainer = make(CLCETrainer, tmp_path, **named)
    assert losses(trainer) == expected
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] < expected[0] and "eval_contrastive_loss" in metrics
    assert trainer.predict(rows).label_ids.tolist() == IDS
    grouped = make(CLCETrainer, tmp_path, samples_per_class=4, **named)
    for batch in grouped.get_train_dataloader():
        assert (batch["fine_label"].view(-1, 4) == batch["fine_label"][::4, None]).all()
    grouped.train()
