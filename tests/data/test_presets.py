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

from clce_hf.cli.main import main
from clce_hf.data.data_arguments import DataArguments
from clce_hf.data.load import load_benchmark, load_splits
from clce_hf.data.presets import BENCHMARKS, class_split

ON_THE_HUB = [name for name, preset in BENCHMARKS.items() if preset.dataset]
FEW_SHOT = [name for name, preset in BENCHMARKS.items() if preset.is_few_shot]
IN_FOLDERS = [name for name in BENCHMARKS if name not in ON_THE_HUB]
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
    """Make a benchmark available, and return what else `load_benchmark` is to be told."""

    def make(name):
        where = {"cache_dir": str(tmp_path / "cache")}
        if BENCHMARKS[name].dataset:
            return {**where, "token": publish(hub, name)}
        lay_out(tmp_path, name)
        return {**where, "folder": str(tmp_path)}

    return make


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_from_its_source_to_images_and_labels(name, at_hand):
    preset, where = BENCHMARKS[name], at_hand(name)
    splits = load_benchmark(name, **where)
    assert list(splits) == list(preset.splits)
    told = []  # class by the image, of each class that a split has images of
    for part, split in splits.items():
        assert set(split.column_names) == {"image", "labels"}
        feature, labels = split.features["labels"], split["labels"][:]
        assert feature.num_classes == preset.splits[part].classes
        assert set(labels) == set(range(feature.num_classes))
        row_of_label = {label: row for row, label in enumerate(labels)}
        told.append({label: number_of(split[row_of_label[label]]["image"]) for label in range(16)})
        for label, number in told[-1].items():
            assert int(re.findall(r"\d+", feature.int2str(label))[-1]) == number
    if preset.is_few_shot:
        for one, other in itertools.combinations(told, 2):
            assert not set(one.values()) & set(other.values())
    if preset.split_column:  # the images are read from the same files, not copied
        files = [{file["filename"] for file in split.cache_files} for split in splits.values()]
        assert files[0]
        assert files[0] == files[1] == files[2]
    assert_trains_and_evaluates_on_the_same_classes(name, where)


def assert_trains_and_evaluates_on_the_same_classes(name, where):
    arguments = DataArguments(
        benchmark=name, benchmark_dir=where.get("folder"), train_val_split=0.5
    )
    train, held_out = load_splits(arguments, 0, where["cache_dir"], where.get("token"))
    assert train.features["labels"] == held_out.features["labels"]
    assert train.features["labels"].num_classes == BENCHMARKS[name].splits["train"].classes
    assert set(held_out["labels"]) == set(train["labels"])


# ---- class splits ----


@pytest.mark.parametrize("name", [n for n in FEW_SHOT if BENCHMARKS[n].split_column])
def test_class_splits_are_disjoint_and_as_large_as_published(name):
    preset = BENCHMARKS[name]
    ids = {split: class_split(name, split) for split in preset.splits}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values()))
    each = 5 if name == "fc100" else 1  # classes a superclass
    sizes = [len(found) * each for found in ids.values()]
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
        found = {synsets[i] for i in class_split("tiered-imagenet", split)}
        assert found >= set(inside), split


def test_classes_of_cifar_fs_and_superclasses_of_fc100():
    baby, beaver, apple = 2, 4, 0
    assert baby in class_split("cifar-fs", "novel")
    assert beaver in class_split("cifar-fs", "validation")
    assert apple in class_split("cifar-fs", "train")
    aquatic_mammals, large_carnivores, fish = 0, 8, 1
    assert aquatic_mammals in class_split("fc100", "novel")
    assert large_carnivores in class_split("fc100", "validation")
    assert fish in class_split("fc100", "train")


# ---- what is said otherwise ----


def test_flags_win_over_the_preset():
    preset = BENCHMARKS["cifar-100"]
    plain = DataArguments(benchmark="cifar-100")
    assert (plain.dataset_name, plain.dataset_revision) == (preset.dataset, preset.revision)
    assert (plain.dataset_config_name, plain.image_column_name) == ("cifar100", "img")
    mirror = DataArguments(benchmark="cifar-100", dataset_name="ann/mirror")
    assert (mirror.dataset_revision, mirror.dataset_config_name) == (None, None)
    assert (mirror.image_column_name, mirror.label_column_name) == ("img", "fine_label")
    said = DataArguments(
        benchmark="cifar-100",
        dataset_revision="main",
        image_column_name="picture",
        label_column_name="coarse_label",
    )
    assert (said.dataset_name, said.dataset_revision) == (preset.dataset, "main")
    assert (said.image_column_name, said.label_column_name) == ("picture", "coarse_label")


def test_columns_are_image_and_label_by_default():
    arguments = DataArguments(dataset_name="ann/photos")
    assert (arguments.image_column_name, arguments.label_column_name) == ("image", "label")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"benchmark": "cifar"}, "benchmark is one of cifar-100, .*, got 'cifar'"),
        ({"benchmark": "cifar-100", "train_dir": "x"}, "either benchmark or train_dir"),
        ({"benchmark": "cifar-100", "benchmark_dir": "x"}, "CIFAR-100 is on the Hub"),
        ({"benchmark": "places365"}, "benchmark_dir, a folder with train/CLASS"),
        ({"benchmark": "inaturalist-2017"}, "benchmark_dir, a folder with train2017.json"),
        (
            {"benchmark": "places365", "benchmark_dir": "x", "dataset_name": "y"},
            "Places365 is not on the Hub",
        ),
        ({"benchmark_dir": "x"}, "benchmark_dir needs benchmark"),
    ],
)
def test_a_benchmark_that_is_asked_for_wrongly(fields, message):
    with pytest.raises(ValueError, match=message):
        DataArguments(**fields)


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


def test_other_classes_than_were_published_are_told(tmp_path):
    mirror = stored(tmp_path, train=[10, 11, 12] * 2)
    arguments = DataArguments(benchmark="tiered-imagenet", dataset_name=mirror, train_val_split=0.5)
    with pytest.warns(UserWarning, match="tieredImageNet was published with 351 classes"):
        train, _ = load_splits(arguments, seed=0)
    assert train.features["labels"].names == ["class 10", "class 11", "class 12"]


def test_a_data_set_without_the_classes_of_a_split(tmp_path):
    mirror = stored(tmp_path, train=[0, 1, 2] * 2)
    arguments = DataArguments(benchmark="tiered-imagenet", dataset_name=mirror)
    with pytest.raises(ValueError, match="None of the images"):
        load_splits(arguments, seed=0)


def test_a_split_that_the_data_set_lacks(tmp_path):
    mirror = stored(tmp_path, train=[0, 1])
    arguments = DataArguments(benchmark="imagenet-1k", dataset_name=mirror)
    with pytest.raises(ValueError, match=r"no split named 'validation', but \['train'\]"):
        load_splits(arguments, seed=0)


# ---- from the command line ----


@pytest.mark.parametrize("name", ["oxford-flowers-102", "fc100", "places365"])
def test_training_on_a_benchmark(name, at_hand, tmp_path):
    where = at_hand(name)
    folder = ["--benchmark_dir", where["folder"]] if "folder" in where else []
    vit(num_labels=BENCHMARKS[name].splits["train"].classes).save_pretrained(tmp_path / "vit")
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


def row_of(name):
    """The row of the table in docs/benchmarks.md."""
    preset = BENCHMARKS[name]
    source = f"`{preset.dataset}`" if preset.dataset else "folder"
    if preset.revision:
        source += f" at `{preset.revision[:7]}`"
    images = ", ".join(f"{part} {size.images:,}" for part, size in preset.splits.items())
    classes = [f"{part.classes:,}" for part in preset.splits.values()]
    classes = classes if preset.is_few_shot else classes[:1]
    license = preset.license + (", gated" if preset.gated else "")
    cells = [preset.title, f"`{name}`", source, images, " / ".join(classes), license]
    return f"| {' | '.join([*cells, preset.unverified])} |"


def test_the_page_has_the_table_of_the_presets():
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    table = re.findall(r"^\| [^|]+ \| `[a-z][a-z0-9-]+` \|.*", page, re.MULTILINE)
    assert table == [row_of(name) for name in BENCHMARKS]
