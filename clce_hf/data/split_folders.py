"""A folder that is named as a data set, and holds nothing but images: train/CLASS/*.jpg."""

import os

from clce_hf.data.folder_tree import Folder, scan

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Names of folders that `datasets` takes for splits."""


def split_folders(folder: str) -> dict[str, Folder]:
    """Return the folders of images of each split; none for files that `datasets` has to read.

    Args:
        folder: that may not be there, as the id of a data set on the Hub is not.
    """
    if not os.path.isdir(folder):
        return {}
    root = scan(os.path.abspath(folder))
    if root.other or not root.has_images():
        return {}
    split_of = {alias: split for split, aliases in _SPLITS.items() for alias in aliases}
    if not root.folders.keys() & split_of.keys():
        return {"train": root}
    if root.images or any(
        child.has_images() for name, child in root.folders.items() if name not in split_of
    ):
        return {}
    named = {name: child for name, child in root.folders.items() if name in split_of}
    held = [
        name for name, child in named.items() if any(i.images or i.other for i in child.below())
    ]
    if len({split_of[name] for name in held}) < len(held):
        return {}
    return {split_of[name]: named[name] for name in held}
