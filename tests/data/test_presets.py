"""Each benchmark's way from the Hub or a folder, on data sets of the same schema."""

import importlib.util
import itertools
import json
import re
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Features, Image
from support import ROOT
from support.benchmark_schemas import names, number_of, picture, publish, rows
from support.tiny import vit
from transformers import ViTImageProcessor

from clce_hf.cli.data_arguments import DataArguments
from clce_hf.cli.main import main
from clce_hf.data.load import load_benchmark, load_labeled_images, load_splits
from clce_hf.data.presets import PRESETS
from clce_hf.data.sources import HubDataset
from clce_hf.errors import ArgumentError

PAPER = [name for name in PRESETS if name != "digits"]
FEW_SHOT = [name for name in PAPER if PRESETS[name].is_few_shot]
IN_FOLDERS = [name for name in PAPER if PRESETS[name].source is None]
SPECIES = [f"species {i}" for i in range(5_089)]
SCENES = [f"scene_{i:03}" for i in range(365)]


def lay_out(folder, name):
    """Lay a folder out as the authors' archives do."""
    if name == "places365":
        for split, i in itertools.product(("train", "val"), range(365)):
            (folder / split / SCENES[i]).mkdir(parents=True)
            (folder / split / SCENES[i] / "0.png").write_bytes(picture(i))
        return
    kingdoms = ["Aves", "Plantae"]
    categories = [
        {"id": i, "name": SPECIES[i], "supercategory": kingdoms[i % 2]} for i in range(5_089)
    ]
    for split in ("train", "val"):
        images, annotations = [], []
        for number in np.random.default_rng(0).permutation(5_089).tolist():
            category = categories[number]
            path = f"train_val_images/{category['supercategory']}/{category['name']}/{split}.png"
            key = 100_000 + len(images)
            images.append({"id": key, "file_name": path})
            annotations.insert(0, {"id": key, "image_id": key, "category_id": number})
            if number < 16:  # the others are listed, but not looked at
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(picture(number))
        listed = {"images": images, "annotations": annotations, "categories": categories[::-1]}
        (folder / f"{split}2017.json").write_text(json.dumps(listed))


@pytest.fixture
def at_hand(hub, tmp_path):
    """Make a benchmark available, and return the other arguments of `load_benchmark`."""

    def make(name):
        where = {"cache_dir": str(tmp_path / "cache")}
        if PRESETS[name].source:
            return {**where, "token": publish(hub, name)}
        lay_out(tmp_path, name)
        return {**where, "folder": str(tmp_path)}

    return make


@pytest.mark.parametrize("name", PAPER)
def test_a_benchmark_from_its_source_to_images_and_labels(name, at_hand):
    preset, where = PRESETS[name], at_hand(name)
    splits = load_benchmark(name, **where)
    assert list(splits) == list(preset.splits)
    numbers = []  # class by the image, of each class that a split has images of
    for part, split in splits.items():
        assert set(split.column_names) == {"image", "labels"}
        feature, labels = split.features["labels"], split["labels"][:]
        assert feature.num_classes == preset.splits[part].classes
        assert set(labels) == set(range(feature.num_classes))
        row_of_label = {label: row for row, label in enumerate(labels)}
        numbers.append(
            {label: number_of(split[row_of_label[label]]["image"]) for label in range(16)}
        )
        for label, number in numbers[-1].items():
            assert int(re.findall(r"\d+", feature.int2str(label))[-1]) == number
    if preset.is_few_shot:
        for one, other in itertools.combinations(numbers, 2):
            assert not set(one.values()) & set(other.values())
    if preset.split_column:  # the images are read from the same files, not copied
        files = [{file["filename"] for file in split.cache_files} for split in splits.values()]
        assert files[0]
        assert files[0] == files[1] == files[2]
    assert_trains_and_evaluates_on_the_same_classes(name, where)


def assert_trains_and_evaluates_on_the_same_classes(name, where):
    preset = PRESETS[name]
    source, reach = preset.stored_in(where.get("folder")), {**where}
    reach.pop("folder", None)
    train, held_out = load_splits(source, preset, held_out_share=0.5, **reach)
    assert train.features["labels"] == held_out.features["labels"]
    assert train.features["labels"].num_classes == PRESETS[name].splits["train"].classes
    assert set(held_out["labels"]) == set(train["labels"])


# ---- class splits ----


@pytest.mark.parametrize("name", [n for n in FEW_SHOT if PRESETS[n].split_column])
def test_class_splits_are_disjoint_and_as_large_as_published(name):
    preset = PRESETS[name]
    ids = {split: part.ids for split, part in preset.splits.items()}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values()))
    classes_per_id = 5 if name == "fc100" else 1  # its ids are superclasses
    sizes = [len(ids_of_split) * classes_per_id for ids_of_split in ids.values()]
    assert sizes == [part.classes for part in preset.splits.values()]


def test_tiered_imagenet_by_the_synsets_of_its_authors():
    """The first and the last line of each of their files."""
    [timm] = importlib.util.find_spec("timm").submodule_search_locations
    file = Path(timm) / "data" / "_info" / "imagenet_synsets.txt"
    synsets = file.read_text().split()
    for split, inside in {
        "train": ["n01530575", "n04208210"],
        "validation": ["n02099267", "n04467665"],
        "novel": ["n03314780", "n07768694"],
    }.items():
        chosen = {synsets[i] for i in PRESETS["tiered-imagenet"].splits[split].ids}
        assert chosen >= set(inside), split


def test_classes_of_cifar_fs_and_superclasses_of_fc100():
    baby, beaver, apple = 2, 4, 0
    assert baby in PRESETS["cifar-fs"].splits["novel"].ids
    assert beaver in PRESETS["cifar-fs"].splits["validation"].ids
    assert apple in PRESETS["cifar-fs"].splits["train"].ids
    aquatic_mammals, large_carnivores, fish = 0, 8, 1
    assert aquatic_mammals in PRESETS["fc100"].splits["novel"].ids
    assert large_carnivores in PRESETS["fc100"].splits["validation"].ids
    assert fish in PRESETS["fc100"].splits["train"].ids


# ---- flags beside a benchmark, and errors ----


def test_flags_win_over_the_preset():
    source = PRESETS["cifar-100"].source
    assert source == HubDataset(
        "uoft-cs/cifar100",
        "cifar100",
        source.revision,
        image_column="img",
        label_column="fine_label",
    )
    assert DataArguments(benchmark="cifar-100").source == source
    mirror = DataArguments(benchmark="cifar-100", dataset_name="ann/mirror").source
    assert mirror == HubDataset("ann/mirror", image_column="img", label_column="fine_label")
    other = DataArguments(
        benchmark="cifar-100",
        dataset_revision="main",
        image_column_name="picture",
        label_column_name="coarse_label",
    )
    assert other.source == HubDataset(
        source.name,
        source.config,
        "main",
        image_column="picture",
        label_column="coarse_label",
    )


def test_columns_are_image_and_label_by_default():
    source = DataArguments(dataset_name="ann/photos").source
    assert (source.image_column, source.label_column) == ("image", "label")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"benchmark": "cifar"}, "--benchmark: There is no benchmark 'cifar': .* cifar-100, "),
        (
            {"benchmark": "cifar-100", "train_dir": "x"},
            "_dir, or dataset_name or benchmark",
        ),
        ({"benchmark": "cifar-100", "benchmark_dir": "x"}, "--benchmark_dir: CIFAR-100 needs no"),
        ({"benchmark": "digits", "benchmark_dir": "x"}, "--benchmark_dir: .*digits needs no"),
        ({"benchmark": "places365"}, "--benchmark_dir: Places365.* a folder with train/CLASS"),
        ({"benchmark": "inaturalist-2017"}, "--benchmark_dir: .*a folder with train2017.json"),
        (
            {"benchmark": "places365", "benchmark_dir": "x", "dataset_name": "y"},
            "Places365 is not on the Hub",
        ),
        ({"benchmark_dir": "x"}, "benchmark_dir needs benchmark"),
    ],
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_benchmark_that_is_asked_for_wrongly(command, fields, message, capsys):
    if command == "evaluate":  # the same checks, with the flag for its folder
        fields = {name.replace("train_dir", "data_dir"): value for name, value in fields.items()}
        message = message.replace("and train", "and data")
    with pytest.raises(SystemExit):
        main([command, *(part for name, value in fields.items() for part in (f"--{name}", value))])
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "argument", "message"),
    [
        (("cifar",), "benchmark", "no benchmark 'cifar': name one of cifar-100, "),
        (("cifar-100", "x"), "folder", "CIFAR-100 needs no folder"),
        (("places365",), "folder", "name a folder with train/CLASS"),
    ],
)
def test_an_error_of_load_benchmark_speaks_of_its_arguments(arguments, argument, message):
    with pytest.raises(ArgumentError, match=message) as refused:
        load_benchmark(*arguments)
    assert refused.value.argument == argument


def test_the_digits_are_a_benchmark_like_any_other():
    splits = load_benchmark("digits")
    assert {name: len(split) for name, split in splits.items()} == {"train": 1297, "test": 500}
    digits = PRESETS["digits"]
    train, held_out = load_splits(digits.source, digits, max_train_samples=100)
    assert (len(train), held_out["labels"][:]) == (100, splits["test"]["labels"][:])
    assert load_labeled_images(digits.source, digits)["labels"][:] == held_out["labels"][:]
    assert len(load_labeled_images(digits.source, digits, split="train")) == 1297
    arguments = DataArguments()
    assert (arguments.benchmark, arguments.may_be_augmented) == ("digits", False)
    assert DataArguments(benchmark="cifar-100").may_be_augmented


def test_a_gated_benchmark_without_access(hub, tmp_path):
    publish(hub, "imagenet-1k")
    with pytest.raises(OSError, match="hf auth login"):
        load_benchmark("imagenet-1k", cache_dir=str(tmp_path))


@pytest.mark.parametrize("name", IN_FOLDERS)
def test_an_empty_folder(name, tmp_path):
    with pytest.raises(OSError, match=r"train"):
        load_benchmark(name, folder=str(tmp_path))


def stored(folder, **splits):
    for name, labels in splits.items():
        features = Features({"image": Image(), "label": names(1_000)})
        content = rows(labels, image=None, label=lambda n: n)
        datasets.Dataset.from_dict(content, features=features).to_parquet(
            folder / f"{name}.parquet"
        )
    return str(folder)


def test_other_classes_than_were_published_raise_a_warning(tmp_path):
    mirror = stored(tmp_path, train=[10, 11, 12] * 2)
    with pytest.warns(UserWarning, match="tieredImageNet was published with 351 classes"):
        train, _ = load_splits(HubDataset(mirror), PRESETS["tiered-imagenet"], held_out_share=0.5)
    assert train.features["labels"].names == ["class 10", "class 11", "class 12"]


def test_a_data_set_without_the_classes_of_a_split(tmp_path):
    mirror = stored(tmp_path, train=[0, 1, 2] * 2)
    with pytest.raises(ValueError, match="None of the images"):
        load_splits(HubDataset(mirror), PRESETS["tiered-imagenet"])


def test_a_split_that_the_data_set_lacks(tmp_path):
    mirror = stored(tmp_path, train=[0, 1])
    with pytest.raises(ValueError, match="no split 'validation'; it has train"):
        load_splits(HubDataset(mirror), PRESETS["imagenet-1k"])


# ---- from the command line ----


@pytest.mark.parametrize("name", ["oxford-flowers-102", "fc100", "places365"])
def test_training_on_a_benchmark(name, at_hand, tmp_path):
    where = at_hand(name)
    folder = ["--benchmark_dir", where["folder"]] if "folder" in where else []
    vit(num_labels=PRESETS[name].splits["train"].classes).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "vit")
    main(
        [
            *("train", "--benchmark", name, *folder),
            *("--model_name_or_path", str(tmp_path / "vit")),
            *("--cache_dir", where["cache_dir"], "--output_dir", str(tmp_path / "out")),
            *("--max_steps", "2", "--use_cpu", "--disable_tqdm", "true"),
            *("--train_val_split", "0.5", "--max_eval_samples", "8", "--rand_augment", "true"),
        ]
    )
    metrics = json.loads((tmp_path / "out" / "all_results.json").read_text())
    assert 0.0 <= metrics["eval_accuracy"] <= 1.0


# ---- the page ----


def facts_of(name):
    """What a row of the table in docs/benchmarks.md says that the code knows, too."""
    preset = PRESETS[name]
    source = "folder"
    if preset.source:
        commit = f" at `{preset.source.revision[:7]}`" if preset.source.revision else ""
        source = f"`{preset.source.name}`{commit}"
    classes = [f"{part.classes:,}" for part in preset.splits.values()]
    classes = classes if preset.is_few_shot else classes[:1]
    return [preset.title, f"`{name}`", source, [*preset.splits], " / ".join(classes)]


def test_the_page_has_the_table_of_the_presets():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    table = re.findall(r"^\| ([^|]+ \| `[a-z][a-z0-9-]+` \|.*) \|$", page, re.MULTILINE)
    rows = []
    for title, name, source, images, classes, *_ in (row.split(" | ") for row in table):
        sizes = dict(part.split(" ") for part in images.split(", "))
        assert all(int(size.replace(",", "")) > 1_000 for size in sizes.values())
        rows.append([title, name, source, [*sizes], classes])
    assert rows == [facts_of(name) for name in PAPER]
