"""Data sets, columns and collators, stock Trainer beside CLCETrainer."""

import datasets
import pytest
import torch
from support.beside_stock import ADDED, both, entries, of_class
from support.tiny import Images
from transformers import DefaultDataCollator, ViTForImageClassification


@pytest.mark.parametrize("remove", [True, False])
def test_columns_that_the_model_does_not_know(tmp_path, remove):
    images = Images(24)
    rows = datasets.Dataset.from_dict(
        {
            "pixel_values": images.pixel_values.tolist(),
            "labels": images.targets,
            "weight": [1.0] * 24,
        }
    )
    seen = []

    def collate(batch):
        seen.append(sorted(batch[0]))
        return DefaultDataCollator()(
            [{k: row[k] for k in ("pixel_values", "labels")} for row in batch]
        )

    def summary(trainer):
        seen.clear()
        trainer.train()
        return list(seen)

    columns = both(
        tmp_path, summary, train=rows, data_collator=collate, remove_unused_columns=remove
    )
    assert ("weight" in columns[0]) is not remove


class TakesIds(ViTForImageClassification):
    """Takes what a collator adds."""

    def forward(self, pixel_values=None, labels=None, ids=None):
        assert ids.tolist() == list(range(len(pixel_values)))
        return super().forward(pixel_values=pixel_values, labels=labels)


def test_a_collator_may_return_more(tmp_path):
    def collate(rows):
        return {**DefaultDataCollator()(rows), "ids": torch.arange(len(rows))}

    def summary(trainer):
        trainer.train()
        return trainer.evaluate().keys() - ADDED

    both(tmp_path, summary, build=of_class(TakesIds), data_collator=collate)


@pytest.mark.parametrize("name", ["label", "labels", "label_ids"])
def test_columns_that_hold_labels(tmp_path, name):
    images = Images(24)
    rows = datasets.Dataset.from_dict(
        {"pixel_values": images.pixel_values.tolist(), name: images.targets}
    ).with_format("torch")

    def summary(trainer):
        trainer.train()
        return trainer.predict(rows).label_ids.tolist(), trainer.evaluate().keys() - ADDED

    labels, _ = both(tmp_path, summary, train=rows, held_out=rows)
    assert labels == images.targets


def test_a_stream_of_a_hugging_face_data_set(tmp_path):
    images = Images(24)
    columns = {"pixel_values": images.pixel_values.tolist(), "label": images.targets}
    rows = datasets.Dataset.from_dict({**columns, "weight": [1.0] * 24})
    stream = rows.to_iterable_dataset().with_format("torch")

    def summary(trainer):
        trainer.train()
        return trainer.evaluate().keys() - ADDED, entries(trainer)

    both(tmp_path, summary, train=stream, held_out=stream, max_steps=5)


class Columns(Images):
    """One label an image, in a row of its own."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "labels": torch.tensor([self.targets[index]])}


def test_labels_in_a_column(tmp_path):
    def summary(trainer):
        trainer.train()
        return trainer.predict(Columns(6)).label_ids.shape, trainer.evaluate().keys() - ADDED

    shape, _ = both(tmp_path, summary, train=Columns(24), held_out=Columns(12))
    assert shape == (6, 1)


class OtherNames(ViTForImageClassification):
    """Takes its labels under another name."""

    def forward(self, pixel_values=None, target=None, **kwargs):
        return super().forward(pixel_values=pixel_values, labels=target)


def test_labels_under_another_name(tmp_path):
    def collate(rows):
        batch = DefaultDataCollator()(rows)
        batch["target"] = batch.pop("labels")
        return batch

    def summary(trainer):
        trainer.train()
        output = trainer.predict(Images(6))
        assert trainer.evaluate()["eval_loss"] > 0
        return output.label_ids.tolist(), sorted(set(output.metrics) - ADDED)

    labels, names = both(
        tmp_path,
        summary,
        build=of_class(OtherNames),
        data_collator=collate,
        label_names=["target"],
        remove_unused_columns=False,
    )
    assert labels == Images(6).targets and "test_loss" in names


class TwoLabels(ViTForImageClassification):
    """Takes two labels and learns the first."""

    def forward(self, pixel_values=None, labels=None, others=None):
        return super().forward(pixel_values=pixel_values, labels=labels)


def test_several_labels(tmp_path):
    def collate(rows):
        batch = DefaultDataCollator()(rows)
        return {**batch, "others": batch["labels"] + 1}

    def summary(trainer):
        trainer.train()
        output = trainer.predict(Images(6))
        return [part.tolist() for part in output.label_ids], set(output.metrics) - ADDED

    (first, second), _ = both(
        tmp_path,
        summary,
        build=of_class(TwoLabels),
        data_collator=collate,
        label_names=["labels", "others"],
    )
    assert second == [label + 1 for label in first]
