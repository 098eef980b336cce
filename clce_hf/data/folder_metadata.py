"""Folders whose images a `metadata.csv` lists with their labels, as `datasets` documents them."""

import csv
import glob
import json
import os
from collections.abc import Iterable, Mapping

from datasets import DatasetDict, load_dataset
from datasets.exceptions import DatasetsError

from clce_hf.data.folder_tree import Folder
from clce_hf.data.left_out import say_left_out

_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def has_metadata(tree: Folder) -> bool:
    """Whether a file of the folder lists images by a column `file_name`."""
    files = (file for folder in tree.below() for file in folder.other)
    return any(os.path.basename(file) in _NAMES and "file_name" in _columns(file) for file in files)


def _columns(file: str) -> Iterable[str]:
    if file.endswith(".parquet"):
        return ["file_name"]  # nothing else is stored under this name
    with open(file, encoding="utf-8-sig") as text:
        if file.endswith(".csv"):
            return next(csv.reader(text), [])
        return json.loads(text.readline() or "{}")


def load_with_metadata(trees: Mapping[str, Folder], cache_dir: str | None) -> DatasetDict:
    """Return the images that the metadata lists, with its columns, by split.

    Raises:
        OSError: if a folder has none, or it cannot be read.
    """
    for tree in trees.values():
        if not has_metadata(tree):
            raise OSError(
                f"The folder {tree.path!r} has no metadata file that lists its images, and that of "
                "another split has one: give both of them one, or none."
            )
    # The pattern must not read brackets in the folder's name.
    files = {split: f"{glob.escape(tree.path)}/**" for split, tree in trees.items()}
    try:
        loaded = load_dataset("imagefolder", data_files=files, cache_dir=cache_dir)
    except (DatasetsError, ValueError) as error:
        raise OSError(
            f"The images that the metadata of {', '.join(tree.path for tree in trees.values())} "
            f"lists cannot be loaded: {str(error.__cause__ or error).strip()}"
        ) from error
    for split, tree in trees.items():
        images = sum(len(folder.images) for folder in tree.below())
        if images > len(loaded[split]):
            unlisted = images - len(loaded[split])
            say_left_out(
                tree.path, f"{unlisted:,} of {images:,} images, which its metadata does not list"
            )
    return loaded
