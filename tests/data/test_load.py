"""Splits of stored images and labels."""

import datasets
import numpy as np
import pytest
from PIL import Image
from support.tiny import CLASSES

from clce_hf.data.class_counts import describe
from clce_hf.data.load import load_labeled_images, load_splits
from clce_hf.data.sources import HubDataset, ImageFolders
from clce_hf.errors import ArgumentError

GRAY = Image.new("L", (9, 7), 128)


def stored(folder, **splits):
    """Write a data set of these labels by split, and return where it is."""
    for name, labels in splits.items():
        images = [GRAY] * len(labels)
        dataset = datasets.Dataset.from_dict({"image": images, "label": labels})
        dataset = dataset.cast_column("image", datasets.Image())
        # By itself, datasets 5.0 chooses no number of rows for an empty split.
        dataset.to_parquet(folder / f"{name}.parquet", batch_size=100)
    return HubDataset(str(folder))


def image_folder(folder, **counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            GRAY.save(folder / name / f"{i}.png")
    return str(folder)


def names_of(dataset):
    """Class name of every image."""
    feature = dataset.features["labels"]
    return [feature.int2str(label) for label in dataset["labels"]]


def test_validation_is_preferred_to_test(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 4, validation=["a", "b"], test=["a", "b"] * 3)
    train, evaluated = load_splits(source)
    assert (len(train), len(evaluated)) == (8, 2)


def test_test_is_used_without_validation(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 4, test=["a", "b"] * 3)
    assert len(load_splits(source)[1]) == 6


def test_a_dataset_without_training_images(tmp_path):
    with pytest.raises(ValueError, match="no split 'train'; it has test"):
        load_splits(stored(tmp_path, test=["a", "b"]))


def test_a_class_absent_from_the_validation_folder_keeps_its_id(tmp_path):
    source = ImageFolders(
        {
            "train": image_folder(tmp_path / "train", ant=2, bee=2, cat=2),
            "validation": image_folder(tmp_path / "val", cat=2),
        }
    )
    assert load_splits(source)[1]["labels"][:] == [2, 2]


def test_a_class_of_the_validation_folder_that_is_not_trained(tmp_path):
    source = ImageFolders(
        {
            "train": image_folder(tmp_path / "train", ant=2, bee=2),
            "validation": image_folder(tmp_path / "val", bee=2, cat=2, dog=1),
        }
    )
    with pytest.raises(
        ValueError,
        match=r"validation images.*without training.*: cat, dog\..*out of 'validation'",
    ):
        load_splits(source)


def test_plain_labels_have_the_ids_of_the_training_classes_in_every_split(tmp_path):
    source = stored(tmp_path, train=["ant", "bee", "cat"] * 2, test=["cat", "bee"])
    train, evaluated = load_splits(source)
    assert names_of(train) == ["ant", "bee", "cat"] * 2
    assert names_of(evaluated) == ["cat", "bee"]
    assert evaluated["labels"][:] == [2, 1]


def test_integer_labels_keep_their_order(tmp_path):
    source = stored(tmp_path, train=list(range(12)) * 2, test=[11, 2])
    train, evaluated = load_splits(source)
    assert train.features["labels"].names == [str(i) for i in range(12)]
    assert evaluated["labels"][:] == [11, 2]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["a", "b"], "test": ["a", "z"]}, "without training images: z"),
        ({"train": ["a", None, "b"], "test": ["a"]}, "some images have no label"),
        ({"train": [["a"], ["b"]], "test": [["a"]]}, "one class per image"),
        ({"train": ["a"] * 9 + ["b"]}, "of b there is one image only. Give every class two images"),
        ({"train": ["a", "b", "c"] * 2}, "1 to evaluate on, for 3 classes.*change the share"),
        ({"train": ["a", "a"], "test": ["a"]}, "All 2 training images are of one class, 'a'"),
        ({"train": ["a", "b", None, "b"], "test": ["a"]}, "1 of 4 in 'train', those in the rows 2"),
        ({"train": [0.0, 1.0, float("nan")], "test": [0.0]}, "those in the rows 2"),
        ({"train": ["a", "b"], "test": ["A"]}, "'A' .trained is 'a'."),
    ],
)
def test_labels_that_cannot_be_trained(tmp_path, splits, message):
    with pytest.raises(ValueError, match=message):
        load_splits(stored(tmp_path, **splits))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "image_column",
            "image column 'photo': the data set has no such column; it has image,",
        ),
        (
            "label_column",
            "label column 'photo': the data set has no such column; it has image,",
        ),
    ],
)
def test_an_error_names_the_column_and_its_argument(tmp_path, argument, message):
    stored(tmp_path, train=["a", "b"])
    with pytest.raises(ArgumentError, match=message) as refused:
        load_splits(HubDataset(str(tmp_path), **{argument: "photo"}))
    assert refused.value.argument == argument


def test_a_share_that_cannot_be_held_out_is_named(tmp_path):
    with pytest.raises(ArgumentError) as refused:
        load_splits(stored(tmp_path, train=["a", "b", "c"] * 2))
    assert refused.value.argument == "held_out_share"


def test_one_split_of_labeled_images(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 4, validation=["a", "b"], test=["a", "b"] * 3)
    assert len(load_labeled_images(source)) == 6  # those of the test
    assert len(load_labeled_images(source, split="validation")) == 2
    with pytest.raises(ArgumentError, match=r"split 'novel': .* but train, validation, test") as no:
        load_labeled_images(source, split="novel")
    assert no.value.argument == "split"


def test_ids_of_named_classes_without_a_label(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])}
    )
    for name, labels in {"train": [0, 1], "test": [-1, -1]}.items():
        rows = datasets.Dataset.from_dict({"image": [GRAY] * 2, "label": labels}, features=features)
        rows.to_parquet(tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="some images have no label"):
        load_splits(HubDataset(str(tmp_path)))


def test_labels_that_are_beyond_the_named_classes(tmp_path):
    named = datasets.ClassLabel(names=["ant", "bee"])
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    rows = datasets.Dataset.from_dict({"image": [GRAY] * 3, "label": [0, 1, 2]}, features=features)
    info = datasets.DatasetInfo(features=datasets.Features({**features, "label": named}))
    datasets.Dataset(rows.data, info=info).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ArgumentError, match="'train' has the label 2, but there are names of 2 cl"):
        load_splits(HubDataset(str(tmp_path)))


def test_a_split_that_is_not_used_need_not_have_labels(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 2, validation=["a", "b"], test=[None])
    assert len(load_splits(source)[1]) == 2


@pytest.mark.parametrize("end", ["", "/"])
def test_folders_of_any_name_and_depth(tmp_path, end):
    source = ImageFolders(
        {
            "train": image_folder(tmp_path / "deep" / "er" / "train [4]", a=2, b=2) + end,
            "validation": image_folder(tmp_path / "val", a=1, b=1) + end,
        }
    )
    assert [len(split) for split in load_splits(source)] == [4, 2]


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="empty' holds no files"):
        load_splits(ImageFolders({"train": str(tmp_path / "empty")}))


def test_a_folder_of_splits(tmp_path):
    for split in ("train", "val"):
        image_folder(tmp_path / "photos" / split, ant=2, bee=2)
    with pytest.raises(OSError, match=r"holds train, val: name one of them, .*train'"):
        load_splits(ImageFolders({"train": str(tmp_path / "photos")}))


def test_a_class_that_is_called_train(tmp_path):
    source = ImageFolders({"train": image_folder(tmp_path / "vehicles", train=20, bus=20)})
    assert load_splits(source)[0].features["labels"].names == ["bus", "train"]


def test_a_folder_of_one_split_is_that_split(tmp_path):
    image_folder(tmp_path / "photos" / "train", ant=20, bee=20)
    train, evaluated = load_splits(ImageFolders({"train": str(tmp_path / "photos")}))
    assert train.features["labels"].names == ["ant", "bee"]
    assert len(train) + len(evaluated) == 40


def test_a_dataset_that_needs_a_script(tmp_path):
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text("")
    with pytest.raises(OSError, match="scripted"):
        load_splits(HubDataset(str(folder)))


def test_a_share_of_the_training_images_is_held_out_by_class(folder):
    source = ImageFolders({"train": str(folder / "train")})
    train_split, held_out = load_splits(source, held_out_share=0.2)
    assert np.bincount(held_out["labels"]).tolist() == [2, 2, 2, 2]
    assert np.bincount(train_split["labels"]).tolist() == [8, 8, 8, 8]
    assert train_split.features["labels"].names == CLASSES
    again = load_splits(source, held_out_share=0.2)[1]
    assert again["labels"] == held_out["labels"]
    another = load_splits(source, held_out_share=0.2, seed=1)[1]
    assert another["labels"] != held_out["labels"]


def test_the_images_held_out_are_those_of_datasets(folder):
    train, held_out = load_splits(ImageFolders({"train": str(folder / "train")}), seed=3)
    both = datasets.concatenate_datasets([train, held_out])
    files = both.cast_column("image", datasets.Image(decode=False))["image"]
    stored = datasets.load_dataset("imagefolder", data_dir=str(folder / "train"))["train"]
    stock = stored.train_test_split(0.15, seed=3, stratify_by_column="label")
    theirs = datasets.concatenate_datasets([stock["train"], stock["test"]])
    theirs = theirs.cast_column("image", datasets.Image(decode=False))["image"]
    assert [row["path"] for row in files] == [row["path"] for row in theirs]


def test_a_data_set_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=f"'{tmp_path}' could not be loaded: Parquet"):
        load_splits(HubDataset(str(tmp_path)))
    stored(tmp_path, train=["a", "b"], test=[])
    with pytest.raises(ValueError, match="one of its splits is empty"):
        load_splits(HubDataset(str(tmp_path)))


def test_the_cache_lies_where_it_is_wanted(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 4)
    load_splits(source, held_out_share=0.5, cache_dir=str(tmp_path / "cache"))
    assert any((tmp_path / "cache").iterdir())


def test_images_of_each_class_are_counted(folder):
    train, _ = load_splits(ImageFolders({"train": str(folder / "train")}), held_out_share=0.2)
    assert describe(train) == "32 images of 4 classes: ant 8, bee 8, cat 8, dog 8"
    labels = np.array(train["labels"][:])
    fewer = train.select(np.flatnonzero(labels != 1))
    assert describe(fewer) == "24 images of 3 classes: ant 8, cat 8, dog 8; none of bee"


@pytest.mark.parametrize(("more", "sizes"), [(0, "3 each"), (1, "3 to 4 each")])
def test_the_sizes_of_many_classes_are_told(more, sizes):
    labels = [*range(11)] * 3 + [0] * more
    names = datasets.ClassLabel(names=list("abcdefghijk"))
    images = datasets.Dataset.from_dict({"labels": labels}).cast_column("labels", names)
    assert f" images of 11 classes: {sizes}: a {3 + more}, b 3, " in describe(images)


def test_fewer_images_on_request(folder):
    source = ImageFolders({split: str(folder / split) for split in ("train", "validation")})
    fewer = load_splits(source, max_train_samples=7, max_eval_samples=3)
    assert [len(split) for split in fewer] == [7, 3]


def test_a_dataset_with_its_own_column_names(folder, tmp_path):
    source = datasets.load_dataset("imagefolder", data_dir=str(folder))["train"]
    names = source.features["label"].names
    plain = source.cast_column("label", datasets.Value("int64"))
    plain = plain.map(lambda row: {"species": names[row["label"]]}, remove_columns="label")
    (tmp_path / "data").mkdir()
    plain.rename_column("image", "photo").to_parquet(tmp_path / "data" / "train.parquet")
    source = HubDataset(str(tmp_path / "data"), image_column="photo", label_column="species")
    train_split, held_out = load_splits(source)
    assert train_split.features["labels"].names == CLASSES
    assert len(train_split) + len(held_out) == 40
    assert set(train_split.column_names) == {"image", "labels"}
