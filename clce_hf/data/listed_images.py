"""Data sets of the images that lie in folders."""

from collections.abc import Mapping

from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    DatasetInfo,
    Features,
    Image,
    NamedSplit,
    Value,
)

from clce_hf.data.class_folders import find_classes
from clce_hf.data.folder_metadata import has_metadata, load_with_metadata
from clce_hf.data.folder_tree import Folder
from clce_hf.data.left_out import say_left_out


def list_images(
    trees: Mapping[str, Folder], cache_dir: str | None = None, may_lack_labels: bool = False
) -> DatasetDict:
    """Return the images of folders, CLASS/*.jpg, by split, and log what of them is left out.

    Args:
        trees: what lies in the folder of each split.
        cache_dir: where the rows are kept that a `metadata.csv` lists; None for the default place.
        may_lack_labels: whether a folder may hold images and no class folders. It gets no labels.

    Returns:
        Data sets with columns `image` and `label`, in the order of paths; the classes of all
        splits are numbered alike, in the order of their names.

    Raises:
        OSError: if it is not known which images are of which class; the message names the folder
            and what is in the way.
    """
    if any(map(has_metadata, trees.values())):
        return load_with_metadata(trees, cache_dir)
    flat = [split for split, tree in trees.items() if may_lack_labels and _has_no_classes(tree)]
    layout = "CLASS/*.jpg or *.jpg" if may_lack_labels else "CLASS/*.jpg"
    found = {s: find_classes(tree, layout) for s, tree in trees.items() if s not in flat}
    for split, classes in found.items():
        if classes.left_out:
            say_left_out(trees[split].path, "; ".join(classes.left_out))
    names = sorted({name for classes in found.values() for name in classes.images})
    listed = {split: _labeled(found[split].images, names, split) for split in found}
    listed |= {split: _dataset({"image": trees[split].images}, {}, split) for split in flat}
    return DatasetDict((split, listed[split]) for split in trees)


def _has_no_classes(tree: Folder) -> bool:
    return bool(tree.images) and not any(folder.has_images() for folder in tree.folders.values())


def _labeled(images: Mapping[str, list[str]], names: list[str], split: str) -> Dataset:
    ids = {name: i for i, name in enumerate(names)}
    rows = sorted((file, ids[name]) for name, files in images.items() for file in files)
    columns = {"image": [file for file, _ in rows], "label": [label for _, label in rows]}
    return _dataset(columns, {"label": ClassLabel(names=names)}, split)


def _dataset(columns: dict[str, list], features: dict[str, ClassLabel], split: str) -> Dataset:
    return Dataset.from_dict(
        columns,
        info=DatasetInfo(
            features=Features({"image": Value("string"), **features}),
            builder_name="imagefolder",  # as a model card names it
        ),
        split=NamedSplit(split),
    ).cast_column("image", Image())
