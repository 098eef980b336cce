"""Images and their labels from the Hub, from folders and from annotations, one way to have them.

Whatever the source, a part has the columns `image` and `labels` in the end, and the classes are
numbered from 0.
"""

import glob
import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value, load_dataset

from clce_hf.errors import abbreviate

_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


def from_hub(
    name: str, config: str | None, revision: str | None, cache_dir: str | None, token: str | None
) -> Any:
    """Load a data set of the Hub, or of a folder laid out as one.

    Raises:
        OSError: if it cannot be had; the message says how to ask for access.
    """
    try:
        return load_dataset(name, config, revision=revision, cache_dir=cache_dir, token=token)
    except (OSError, RuntimeError) as error:  # datasets refuses loading scripts as RuntimeError
        raise OSError(
            f"The data set {name!r} could not be loaded: {error}\nIf it is gated or private, ask "
            "for access on its page, then log in with `hf auth login` or pass --token."
        ) from error


def from_folders(folders: dict[str, str], cache_dir: str | None) -> Any:
    """Load folders of images, CLASS/*.jpg, by split.

    Raises:
        OSError: if a folder is missing or empty, or holds the folders of several splits.
    """
    files = {}
    for split, folder in folders.items():
        if not Path(folder).is_dir():
            raise OSError(f"There is no folder {folder!r}.")
        _check_is_one_split(Path(folder))
        if not any(file.is_file() for file in Path(folder).rglob("*")):
            raise OSError(f"The folder {folder!r} holds no files: images lie in it as CLASS/*.jpg.")
        # The pattern must not read brackets in the folder's name, nor a slash at its end.
        files[split] = f"{glob.escape(str(Path(folder)))}/**"
    # By default labels are left out where the two folders lie at different depths.
    return load_dataset("imagefolder", data_files=files, cache_dir=cache_dir, drop_labels=False)


def _check_is_one_split(folder: Path) -> None:
    splits = [
        child
        for child in sorted(folder.iterdir())
        if child.name.lower() in _SPLITS
        and child.is_dir()
        and any(inner.is_dir() for inner in child.iterdir())
    ]
    # One alone may be a class: trains are photographed, too.
    if len(splits) > 1:
        raise OSError(
            f"The folder {str(folder)!r} holds {', '.join(child.name for child in splits)}: name "
            f"one of them, {str(splits[0])!r} for example, so that their images are kept apart."
        )


def from_annotations(folder: Path, files: dict[str, str]) -> Any:
    """Load images that files of annotations in COCO's format list, one category an image.

    Args:
        folder: that holds the files, and the images where the files say.
        files: by split.

    Raises:
        OSError: if a file is missing.
    """
    parts = {}
    for split, file in files.items():
        listed = json.loads((folder / file).read_text())
        categories = sorted(listed["categories"], key=lambda category: category["id"])
        # Two kingdoms may share a name.
        names = [f"{category['supercategory']}/{category['name']}" for category in categories]
        class_of = {category["id"]: i for i, category in enumerate(categories)}
        path_of = {image["id"]: str(folder / image["file_name"]) for image in listed["images"]}
        rows = {
            "image": [path_of[row["image_id"]] for row in listed["annotations"]],
            "label": [class_of[row["category_id"]] for row in listed["annotations"]],
        }
        features = Features({"image": Image(), "label": ClassLabel(names=names)})
        parts[split] = Dataset.from_dict(rows, features=features)
    return parts


def standard_columns(dataset: Dataset, image_column: str, label_column: str) -> Dataset:
    """Keep the images and labels alone, as `image` and `labels`.

    Raises:
        ValueError: if a column is missing.
    """
    columns = {
        "image_column_name": (image_column, "image"),
        "label_column_name": (label_column, "labels"),
    }
    for flag, (name, _) in columns.items():
        if name not in dataset.column_names:
            raise ValueError(
                f"--{flag} {name}: the data set has no such column, but "
                f"{', '.join(dataset.column_names)}."
            )
    dataset = dataset.select_columns([name for name, _ in columns.values()])
    dataset = dataset.rename_columns({name: new for name, new in columns.values() if name != new})
    if not isinstance(dataset.features["image"], Image):
        dataset = dataset.cast_column("image", Image())
    return dataset


def number_classes(parts: list[Dataset], label_column: str) -> list[Dataset]:
    """Turn labels into ids of the classes of the first part, the training images.

    Encoding each part by its own classes would number them differently where one lacks a class.
    Labels that are ids of named classes stay.

    Raises:
        ValueError: if an image has no label, or a class that the first part lacks.
    """
    feature = parts[0].features["labels"]
    named = isinstance(feature, ClassLabel)
    flag = f"--label_column_name {label_column}"
    if not named and not isinstance(feature, Value):
        raise ValueError(f"{flag}: one class an image is needed, but the column holds {feature}.")
    classes = [set(part.unique("labels")) for part in parts]
    absent = {None, -1} if named else {None}  # -1 is how data sets of the Hub hide a test label
    if any(found & absent for found in classes):
        raise ValueError(f"{flag}: some images have no label.")
    if unseen := set().union(*classes) - classes[0]:
        names = [feature.names[i] for i in sorted(unseen)] if named else sorted(map(str, unseen))
        raise ValueError(
            f"The images to evaluate on have classes that are not trained: {abbreviate(names)}. "
            "Give them training images, or take them out of --validation_dir or that split."
        )
    if named:
        return parts
    ids = {value: i for i, value in enumerate(sorted(classes[0]))}
    encoded = ClassLabel(names=[str(value) for value in ids])
    return [
        part.select_columns("image").add_column(
            "labels", [ids[value] for value in part["labels"]], feature=encoded
        )
        for part in parts
    ]


def keep_classes(dataset: Dataset, ids: np.ndarray, kept: list[int]) -> Dataset:
    """Keep the rows whose id is among `kept`, and number their classes anew, in the old order.

    Args:
        dataset: with columns `image` and `labels`, of class ids.
        ids: shape (n,), those to choose by: the labels, or another column.
        kept: the ids to keep.

    Raises:
        ValueError: if no row is kept.
    """
    labels = column_values(dataset, "labels")
    mask = np.isin(ids, kept)
    classes = np.unique(labels[mask])
    if len(classes) == 0:
        raise ValueError(f"None of the images is of the classes {kept}.")
    names = dataset.features["labels"].int2str(classes.tolist())
    # Numbered before rows are taken away: afterwards, a new column would copy the images.
    numbered = np.where(mask, np.searchsorted(classes, labels), -1)
    dataset = dataset.select_columns("image").add_column(
        "labels", numbered, feature=ClassLabel(names=names)
    )
    return dataset.select(np.flatnonzero(mask))


def column_values(dataset: Dataset, name: str) -> np.ndarray:
    """Return a column of numbers, shape (n,), without decoding images."""
    return dataset.with_format("arrow").select_columns(name)[:].column(name).to_numpy()
