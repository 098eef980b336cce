import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from support.tiny import CLASSES
from transformers import (
    BeitImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    EvalPrediction,
    MobileViTImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)
from transformers.models.timm_wrapper.image_processing_timm_wrapper import (
    TimmWrapperImageProcessor,
)

from clce_hf.data.load import load_labeled_images, load_splits
from clce_hf.data.sources import HubDataset, ImageFolders
from clce_hf.data.transforms import evaluation_rows, training_rows
from clce_hf.errors import ArgumentError
from clce_hf.evaluation.hf_metrics import compute_accuracy

GRAY = Image.new("L", (9, 7), 128)
EVEN = Image.new("RGB", (300, 260), (30, 128, 220))


def stored(folder, **splits):
    """Write a data set of these labels by split, and return where it is."""
    for name, labels in splits.items():
        images = [GRAY] * len(labels)
        dataset = datasets.Dataset.from_dict({"image": images, "label": labels})
        dataset.cast_column("image", datasets.Image()).to_parquet(folder / f"{name}.parquet")
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


# ---- splits ----


def test_validation_is_preferred_to_test(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 4, validation=["a", "b"], test=["a", "b"] * 3)
    train, evaluated = load_splits(source)
    assert (len(train), len(evaluated)) == (8, 2)


def test_test_is_used_without_validation(tmp_path):
    source = stored(tmp_path, train=["a", "b"] * 4, test=["a", "b"] * 3)
    assert len(load_splits(source)[1]) == 6


def test_a_dataset_without_training_images(tmp_path):
    with pytest.raises(ValueError, match="no split named 'train'"):
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
        ValueError, match=r"validation images.*not trained: cat, dog\..*out of 'validation'"
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
        ({"train": ["a", "b"], "test": ["a", "z"]}, "not trained: z"),
        ({"train": ["a", None, "b"], "test": ["a"]}, "some images have no label"),
        ({"train": [["a"], ["b"]], "test": [["a"]]}, "one class per image"),
        ({"train": ["a"] * 9 + ["b"]}, "every class two images"),
        ({"train": ["a", "b", "c"] * 2}, "change the share"),
    ],
)
def test_labels_that_cannot_be_trained(tmp_path, splits, message):
    with pytest.raises(ValueError, match=message):
        load_splits(stored(tmp_path, **splits))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("image_column", "image column 'photo': the data set has no such column, but image, label"),
        ("label_column", "label column 'photo': the data set has no such column, but image, label"),
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


# ---- transforms ----

STATISTICS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.1]}
PROCESSORS = {
    "vit": (ViTImageProcessor(size={"height": 16, "width": 20}, **STATISTICS), (16, 20)),
    "vit-unnormalized": (ViTImageProcessor(do_normalize=False), (224, 224)),
    "bit": (BitImageProcessor(**STATISTICS), (224, 224)),
    "convnext-384": (ConvNextImageProcessor(size={"shortest_edge": 384}), (384, 384)),
    "convnext-224": (ConvNextImageProcessor(size={"shortest_edge": 224}), (224, 224)),
    "beit": (BeitImageProcessor(), (224, 224)),
    "clip": (CLIPImageProcessor(), (224, 224)),
    "siglip": (SiglipImageProcessor(), (224, 224)),
    "efficientnet": (EfficientNetImageProcessor(size={"height": 32, "width": 32}), (32, 32)),
    "mobilevit": (
        MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        (32, 32),
    ),
    "timm": (
        TimmWrapperImageProcessor(
            pretrained_cfg={
                "input_size": [3, 16, 16],
                "mean": [0.4, 0.5, 0.6],
                "std": [0.2, 0.3, 0.1],
                "interpolation": "bicubic",
                "crop_pct": 0.9,
            }
        ),
        (16, 16),
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_training_pixels_are_those_of_the_processor(name):
    processor, size = PROCESSORS[name]
    rows = {"image": [EVEN], "labels": [0]}
    [trained] = training_rows(processor)(rows)["pixel_values"]
    [evaluated] = evaluation_rows(processor)(rows)["pixel_values"]
    assert trained.shape == evaluated.shape == (3, *size)
    assert trained.dtype == evaluated.dtype == torch.float32
    # An even image stays one under any crop or flip.
    torch.testing.assert_close(trained, evaluated, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["vit", "bit", "timm"])
def test_rows_of_gray_images(name):
    processor, size = PROCESSORS[name]
    gray = Image.new("L", (40, 30), 128)
    rows = {"image": [gray, gray], "labels": [0, 1]}
    evaluated = evaluation_rows(processor)(rows)
    torch.testing.assert_close(
        evaluated["pixel_values"][0],
        processor(gray.convert("RGB"), return_tensors="pt")["pixel_values"][0],
    )
    trained = training_rows(processor)(rows)
    for made in (evaluated, trained):
        assert made["labels"] == [0, 1]
        assert made["pixel_values"][0].shape == (3, *size)
        assert made["pixel_values"][0].dtype == torch.float32
    torch.testing.assert_close(
        trained["pixel_values"][0], evaluated["pixel_values"][0], atol=1e-3, rtol=1e-3
    )


def test_training_crops_and_flips_at_random():
    torch.manual_seed(0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    transform = training_rows(PROCESSORS["vit"][0])
    first, second = transform({"image": [image, image], "labels": [0, 0]})["pixel_values"]
    assert not torch.equal(first, second)


def test_rand_augment_changes_more_than_the_crop():
    """An even image stays even under crops and flips, but not under shears and the like."""
    torch.manual_seed(0)
    processor, size = PROCESSORS["vit"]
    rows = {"image": [EVEN] * 16, "labels": [0] * 16}
    plain = training_rows(processor)(rows)["pixel_values"]
    augmented = training_rows(processor, rand_augment=True)(rows)["pixel_values"]
    assert all(torch.equal(pixels, plain[0]) for pixels in plain)
    assert not all(torch.equal(pixels, plain[0]) for pixels in augmented)
    assert {pixels.shape for pixels in augmented} == {(3, *size)}


def test_a_processor_that_keeps_proportions_is_refused():
    processor = BitImageProcessor(size={"shortest_edge": 24}, do_center_crop=False)
    with pytest.raises(ValueError, match=r"keeps the proportions.*crop_size"):
        training_rows(processor)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_any_mode(mode):
    image = Image.new("L", (40, 30), 200)
    image = Image.new("I;16", (40, 30), 200) if mode == "I;16" else image.convert(mode)
    for make in (training_rows, evaluation_rows):
        [pixels] = make(PROCESSORS["vit"][0])({"image": [image], "labels": [0]})["pixel_values"]
        assert pixels.shape == (3, 16, 20)


# ---- accuracy ----


def test_accuracy_is_the_share_of_right_classes():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(101, 7)), generator.integers(0, 7, 101)
    expected = sum(int(row.argmax() == label) for row, label in zip(logits, labels, strict=True))
    metrics = compute_accuracy(EvalPrediction(logits, labels))
    assert metrics == {"accuracy": pytest.approx(expected / 101, abs=1e-12)}
    assert type(metrics["accuracy"]) is float


def test_accuracy_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "cache"
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(cache))
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_CACHE", str(cache))
    compute_accuracy(EvalPrediction(np.eye(3), np.arange(3)))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []
