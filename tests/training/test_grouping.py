"""Batches of groups: made by the labels that are trained on, or refused."""

from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from support import ROOT
from support.launching import launch
from support.tiny import CLASSES, NUM_CLASSES, Images, config, logged, vit
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset
from torchvision.transforms import v2
from transformers import default_data_collator

from clce_hf import CLCETrainer
from clce_hf.data import MixingCollator

IMAGES = Images(64)
LIST: Any = [IMAGES[i] for i in range(64)]
IDS = IMAGES.targets
OTHER_IDS = np.random.default_rng(0).integers(0, NUM_CLASSES, 64).tolist()
COARSE = [i // 2 for i in IDS]


class Attributed(Dataset):
    """Images with these attributes, their labels one-hot or as they are."""

    def __init__(self, one_hot=False, **attributes):
        self.one_hot = one_hot
        vars(self).update(attributes)

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        row = IMAGES[index]
        if self.one_hot:
            row["labels"] = F.one_hot(torch.tensor(row["labels"]), NUM_CLASSES).float()
        return row


def grouped(folder, train, collate=None, cls=CLCETrainer, model=None, **fields):
    fields = {"samples_per_class": 4, "max_steps": -1, "num_train_epochs": 2, **fields}
    args = config(folder, remove_unused_columns=False, **fields)
    return cls(model or vit(), args, collate, train)


def assert_groups(trainer):
    """The batches are made of groups, and training goes through."""
    for batch in trainer.get_train_dataloader():
        groups = batch["labels"].view(-1, 4)
        assert (groups == groups[:, :1]).all()
    trainer.train()
    assert min(logged(trainer, "positives_per_anchor")) >= 3


def table(label, *, ids=IDS, **columns):
    """A Hugging Face data set with a transform that takes its labels from elsewhere."""
    rows = {"row": list(range(64)), "label": label, **columns}

    def transform(rows):
        pixels = [IMAGES.pixel_values[row] for row in rows["row"]]
        return {"pixel_values": pixels, "labels": [ids[row] for row in rows["row"]]}

    return datasets.Dataset.from_dict(rows).with_transform(transform)


def named(dataset, values):
    """As the error message says it."""
    dataset.targets = dataset[values] if isinstance(values, str) else values
    return dataset


RIGHT = {
    "a column of shape (n, 1)": Attributed(labels=np.array(IDS, np.uint8)[:, None]),
    "a series": Attributed(targets=pd.Series(IDS, index=range(9, 73))),
    "a series of nullable integers": Attributed(label=pd.Series(IDS, dtype="Int64")),
    "renumbered": Attributed(targets=[17 + 5 * i for i in IDS]),
    "names beside ids": Attributed(labels=CLASSES, targets=IDS),
    "ids beside names": Attributed(targets=CLASSES, labels=IDS),
    "dicts": LIST,
    "dicts with a label": [{**IMAGES[i], "label": IDS[i], "labels": IDS[i]} for i in range(64)],
    "a tuple": tuple(LIST),
    "part of a list": Subset(LIST, range(0, 64, 2)),
    "parts": ConcatDataset([IMAGES, Attributed(targets=IDS)]),
    "a named column": named(table(OTHER_IDS, species=IDS), "species"),
    "named ids": named(table(CLASSES * 16), IDS),
    "named ids of a part": named(Subset(Attributed(), range(32)), IDS[:32]),
    "a column of lists": table([[i] for i in IDS]),
}


@pytest.mark.filterwarnings("ignore:.*have fewer than samples_per_class")
@pytest.mark.parametrize("train", RIGHT.values(), ids=RIGHT.keys())
def test_groups_by_labels_in_every_form(tmp_path, train):
    assert_groups(grouped(tmp_path, train))


def test_a_named_column_outlives_the_columns_that_trainer_removes(tmp_path):
    columns = {"pixel_values": IMAGES.pixel_values.tolist(), "label": IDS, "twin": IDS[::-1]}
    rows = datasets.Dataset.from_dict({**columns, "mirror": [9 - i for i in IDS]})
    rows = named(rows.with_format("torch"), "mirror")
    trainer = grouped(tmp_path, rows)
    trainer.args.remove_unused_columns = True
    assert_groups(trainer)


UNREADABLE = {
    "nothing": (Attributed(), r"of type Attributed, has none by the names targets, labels, label,"),
    "names of the classes": (Attributed(labels=CLASSES), r"'labels' is of shape \(4,\) for 64 row"),
    "names": (Attributed(targets=CLASSES * 16), "'targets' holds strings, not integers"),
    "too few": (Attributed(targets=IDS[:20]), r"attribute 'targets' is of shape \(20,\) for 64"),
    "a dict": (Attributed(label=dict(enumerate(IDS))), "attribute 'label' is a dict"),
    "a method": (Attributed(targets=IDS.index), "attribute 'targets' is a builtin_function_or"),
    "one-hot rows": (Attributed(targets=np.eye(4)[IDS]), r"'targets' is of shape \(64, 4\) for 64"),
    "floats": (Attributed(targets=[i / 1 for i in IDS]), "holds float64, not integers"),
    "ragged": (Attributed(targets=[[0] * i for i in IDS]), "is not one value for each row"),
    "a column of strings": (table(CLASSES * 16), "column 'label' holds string, not integers"),
    "missing": (table([i or None for i in IDS]), "column 'label' has rows without a value"),
    "a named column of strings": (named(table(IDS, x=CLASSES * 16), "x"), "'targets' holds string"),
    "pairs": ([(IMAGES.pixel_values[i], IDS[i]) for i in range(64)], r"type list.*make the rows "),
    "a constant": (Attributed(targets=[7] * 64), "by attribute 'targets'.*fewer than two class"),
    "rows": (
        Attributed(targets=range(64)),
        "by attribute 'targets'.*64 classes, but.*num_labels=4",
    ),
    "another length": (Subset(Attributed(targets=IDS[:9]), range(64)), r"shape \(9,\) for 64 rows"),
}


@pytest.mark.parametrize(("train", "message"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_labels_that_cannot_be_those_of_the_rows(tmp_path, train, message):
    with pytest.raises(ValueError, match=message) as raised:
        grouped(tmp_path, train)
    assert str(raised.value).startswith("samples_per_class")
    assert ", set train_dataset.targets =" in str(raised.value) or isinstance(train, list)


def mix(cls):
    transform = cls(num_classes=NUM_CLASSES)

    def collate(rows):
        batch = default_data_collator(rows)
        images, labels = transform(batch["pixel_values"], batch["labels"])
        return {"pixel_values": images, "labels": labels}

    return collate


def soften(rows):
    batch = default_data_collator(rows)
    return {**batch, "labels": 0.9 * F.one_hot(batch["labels"], NUM_CLASSES) + 0.025}


def ignore_some(rows):
    batch = default_data_collator(rows)
    batch["labels"][5] = -100
    return batch


def shuffle(rows):
    batch = default_data_collator(rows)
    order = torch.randperm(len(rows))
    return {name: values[order] for name, values in batch.items()}


COLLATORS = {
    "mixup": mix(v2.MixUp),
    "cutmix": mix(v2.CutMix),
    "smoothing": soften,
    "ignored": ignore_some,
    "shuffled": shuffle,
    "column": lambda rows: {
        k: v[:, None] if k == "labels" else v for k, v in shuffle(rows).items()
    },
    "two views": lambda rows: default_data_collator(rows + rows),
}


def assert_refused(trainer, source, step=0):
    message = rf"samples_per_class=4 grouped the images by {source}.*sees other labels.*targets ="
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.global_step <= step


@pytest.mark.parametrize("collate", COLLATORS.values(), ids=COLLATORS.keys())
def test_what_a_collator_does_to_labels(tmp_path, collate):
    fields = {"per_device_train_batch_size": 16, "num_train_epochs": 5}
    grouped(tmp_path, Attributed(targets=IDS), collate, **fields).train()
    trainer = grouped(tmp_path, Attributed(targets=OTHER_IDS), collate, **fields)
    assert_refused(trainer, "attribute 'targets'")


def test_images_mixed_by_the_collator_of_the_library(tmp_path):
    collate = MixingCollator(mixup_alpha=0.4, cutmix_alpha=0.4)
    grouped(tmp_path, Attributed(one_hot=True, targets=IDS), collate).train()
    trainer = grouped(tmp_path, Attributed(one_hot=True, targets=OTHER_IDS), collate)
    assert_refused(trainer, "attribute 'targets'", step=3)


def test_images_mixed_each_by_its_own_share_are_not_judged(tmp_path):
    def collate(rows):
        batch = default_data_collator(rows)
        one_hot, share = F.one_hot(batch["labels"], NUM_CLASSES), torch.rand(len(rows), 1)
        return {**batch, "labels": share * one_hot + (1 - share) * one_hot.roll(1, 0)}

    grouped(tmp_path, Attributed(targets=IDS), collate).train()


@pytest.mark.parametrize("fields", [{}, {"gradient_accumulation_steps": 3}], ids=str)
def test_groups_by_another_column_than_the_trained_one(tmp_path, fields):
    assert_refused(grouped(tmp_path, table(OTHER_IDS, species=IDS), **fields), "column 'label'", 3)
    assert_refused(grouped(tmp_path, table(COARSE), **fields), "column 'label'", 3)
    lost = named(table(OTHER_IDS, species=IDS), "species").shuffle(seed=0)
    assert_refused(grouped(tmp_path, lost, **fields), "column 'label'", 3)


def test_a_few_labels_that_differ(tmp_path):
    noisy = [(label + (i % 20 == 3)) % NUM_CLASSES for i, label in enumerate(IDS)]
    assert_refused(grouped(tmp_path, Attributed(targets=noisy)), "attribute 'targets'", 8)


def test_the_advice_leads_where_it_says(tmp_path):
    rows = datasets.Dataset.from_dict({"img": range(64), "fine_label": IDS, "coarse_label": COARSE})
    rows.set_transform(
        lambda rows: {
            "pixel_values": [IMAGES.pixel_values[row] for row in rows["img"]],
            "labels": rows["fine_label"],
        }
    )
    with pytest.raises(ValueError, match=r'train_dataset.targets = train_dataset\["COLUMN"\]'):
        grouped(tmp_path, rows)
    rows.targets = rows["fine_label"]
    assert_groups(grouped(tmp_path, rows))


def test_fewer_classes_than_were_read(tmp_path):
    """The finer ones make groups of the coarser ones, but not where a model has too few."""
    grouped(tmp_path, table(IDS, ids=COARSE)).train()
    with pytest.raises(ValueError, match=r"4 classes, but the model has num_labels=2: load it"):
        grouped(tmp_path, table(IDS, ids=COARSE), model=vit(num_labels=2))


class OtherLoader(CLCETrainer):
    def get_train_dataloader(self):
        return DataLoader(self.train_dataset, batch_size=8, collate_fn=default_data_collator)


class OtherSampler(CLCETrainer):
    def _get_train_sampler(self, train_dataset=None):
        return RandomSampler(train_dataset)


@pytest.mark.parametrize("cls", [OtherLoader, OtherSampler])
def test_data_loaders_that_would_leave_batches_ungrouped(tmp_path, cls):
    trainer = grouped(tmp_path, Attributed(targets=IDS), cls=cls)
    with pytest.raises(ValueError, match=r"get_train_dataloader made another: leave samples_per_c"):
        trainer.train()
    trainer.args.samples_per_class = None
    trainer.train()


@pytest.mark.slow
def test_two_processes_share_groups_in_every_way(tmp_path):
    script = ROOT / "tests" / "support" / "grouping_cases.py"
    output = launch(str(script), str(tmp_path)).stdout
    # A group of 16 would be split between the processes.
    assert output.count("refused: {'split_batches': True} samples_per_class=16 must divide") == 2
    assert output.count("refused") == 2
