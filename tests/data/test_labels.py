"""Labels read past images and transforms."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import Images
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from clce_hf.data.labels import find_labels, read_labels


def folder_of_images(root, labels):
    for i, label in enumerate(labels):
        (root / str(label)).mkdir(exist_ok=True, parents=True)
        Image.fromarray(np.full((16, 16, 3), 7 * i, np.uint8)).save(root / str(label) / f"{i}.png")


def explode(*args):
    raise AssertionError("an image was decoded to read its label")


def test_labels_of_a_dataset_with_a_transform_are_read_without_running_it():
    labels = [3, 1, 1, 0, 3, 2]
    dataset = datasets.Dataset.from_dict(
        {"image": [b"not an image"] * 6, "label": labels},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))}
        ),
    )
    dataset.set_transform(explode)
    assert find_labels(dataset).ids.tolist() == labels
    shuffled = dataset.shuffle(seed=1).select([4, 2, 0])
    shuffled.set_transform(explode)
    expected = shuffled.with_format(None).remove_columns("image")["label"]
    assert find_labels(shuffled).ids.tolist() == list(expected)
    assert (
        find_labels(dataset.rename_column("label", "species"), ["species"]).ids.tolist() == labels
    )
    assert find_labels(dataset.remove_columns("label")) is None
    assert read_labels(dataset.remove_columns("label")) is None


def test_label_names_come_before_the_usual_columns():
    columns = {"label": [0, 0, 1], "species": [2, 1, 0], "labels": [1, 1, 0]}
    dataset = datasets.Dataset.from_dict(columns)
    assert find_labels(dataset, ["species"]).ids.tolist() == columns["species"]
    assert find_labels(dataset, ["genus", "species"]).ids.tolist() == columns["species"]
    assert find_labels(dataset, ["genus"]).ids.tolist() == columns["labels"]


def test_labels_of_torch_datasets(tmp_path):
    folder_of_images(tmp_path, [0, 1, 1, 2])
    folder = ImageFolder(str(tmp_path), loader=explode)
    assert find_labels(folder).ids.tolist() == [0, 1, 1, 2]
    assert find_labels(Subset(folder, [3, 0])).ids.tolist() == [2, 0]
    assert find_labels(ConcatDataset([folder, Subset(folder, [1])])).ids.tolist() == [0, 1, 1, 2, 1]
    assert find_labels(Images(4)).ids.tolist() == Images(4).targets
    tensors = TensorDataset(torch.zeros(2), torch.ones(2))
    assert find_labels(tensors) is None
    assert find_labels(ConcatDataset([folder, tensors])) is None


def test_labels_that_were_named_come_first_and_alone():
    columns = {"label": [0, 0, 1], "species": [2, 1, 0], "x": list("abc")}
    dataset = datasets.Dataset.from_dict(columns)
    dataset.set_transform(explode)
    dataset.targets = dataset["species"]
    found = find_labels(dataset)
    assert (found.ids.tolist(), found.source) == ([2, 1, 0], "attribute 'targets'")
    assert find_labels(dataset.remove_columns("x")).ids.tolist() == [2, 1, 0]
    assert find_labels(pickle.loads(pickle.dumps(dataset))).ids.tolist() == [2, 1, 0]
    assert find_labels(dataset.select([2, 0])).source == "column 'label'"
    with pytest.raises(ValueError, match=r"'targets' is the column 'species', which is gone"):
        find_labels(dataset.rename_column("species", "kind"))
    dataset.targets = dataset["x"]
    with pytest.raises(ValueError, match=r"row: attribute 'targets' holds string, not integers"):
        find_labels(dataset)


def test_rows_of_a_list():
    rows = [{"image": i, "label": 2 * i, "species": i} for i in range(3)]
    assert find_labels(rows).ids.tolist() == [0, 2, 4]
    assert find_labels(tuple(rows), ["species"]).ids.tolist() == [0, 1, 2]
    assert find_labels([{"labels": torch.tensor(i)} for i in range(3)]).ids.tolist() == [0, 1, 2]
    assert find_labels([{"label": None}] * 2) is find_labels([(0, 1)]) is find_labels([]) is None
    with pytest.raises(ValueError, match=r"key 'label' is not one value for each row"):
        find_labels([{"label": 1}, {"label": [0, 1]}])


@pytest.mark.parametrize(
    "values", [["cat", "dog"], [[0.0, 1.0]] * 2, [0.0, 1.0], [{"id": 0}, {"id": 1}], [0, None]]
)
def test_labels_that_are_not_class_ids_are_named(values):
    dataset = datasets.Dataset.from_dict({"label": values})
    with pytest.raises(ValueError, match=r"one integer for each row: column 'label' h"):
        find_labels(dataset)


def test_a_million_shuffled_labels_are_read_without_gathering_rows(monkeypatch):
    """Row by row, as any format of the data set reads them, a million take seconds."""
    labels = np.random.default_rng(0).integers(0, 1000, 1_000_000)
    dataset = datasets.Dataset.from_dict({"image": np.zeros(1_000_000, np.uint8), "label": labels})
    dataset = dataset.shuffle(seed=0)
    dataset.set_transform(explode)
    monkeypatch.setattr("datasets.arrow_dataset.query_table", explode)
    read = read_labels(dataset)
    assert len(read) == 1_000_000
    assert read.sum() == labels.sum()
