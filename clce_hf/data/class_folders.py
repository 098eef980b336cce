"""The images of each class in a folder, CLASS/*.jpg, and what of it is left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from clce_hf.data.folder_tree import Folder, is_image, suffix
from clce_hf.errors import abbreviate

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")
"""Names of folders, in lower case, that hold the class folders of a split."""


@dataclass(frozen=True)
class ClassFolders:
    """Images by the name of their class.

    Attributes:
        images: paths by class, in the order of names.
        left_out: lines that say what is left out and why.
    """

    images: dict[str, list[str]]
    left_out: list[str]


def find_classes(root: Folder, layout: str = "CLASS/*.jpg") -> ClassFolders:
    """Return the images of each class folder.

    A folder in a folder with nothing beside it that holds images is entered: photos/train/CLASS.

    Args:
        root: what lies in the folder.
        layout: how images may lie in it, for the message where there are none.

    Raises:
        OSError: if it is not known what the classes are, or one of them has no readable image.
    """
    _check_is_one_split(root)
    top = root
    while _is_wrapper(top):
        [top] = [folder for folder in top.folders.values() if folder.has_images()]
    classes = {name: folder for name, folder in top.folders.items() if folder.has_images()}
    _check_layout(top, classes, layout)
    _check_names(top, list(classes))
    images = {unicodedata.normalize("NFC", name): classes[name].images for name in classes}
    return ClassFolders(images, list(_left_out(root, top)))


def _is_wrapper(folder: Folder) -> bool:
    inner = [child for child in folder.folders.values() if child.has_images()]
    return not folder.images and len(inner) == 1 and not inner[0].images


def _check_is_one_split(root: Folder) -> None:
    splits = [name for name in root.folders if name.lower() in SPLITS]
    with_folders = [name for name in splits if root.folders[name].folders]
    # One alone may be a class: trains are photographed, too.
    if len(with_folders) > 1 or (len(splits) > 1 and len(splits) == len(root.folders)):
        raise OSError(
            f"The folder {root.path!r} holds {', '.join(splits)}: name one of them, "
            f"{os.path.join(root.path, splits[0])!r} for example, so that their images are kept "
            "apart."
        )


def _check_layout(top: Folder, classes: dict[str, Folder], layout: str) -> None:
    if not classes:
        raise OSError(f"The folder {top.path!r} holds {_instead_of_classes(top, layout)}")
    deeper = [
        image
        for folder in classes.values()
        for inner in folder.folders.values()
        for found in inner.below()
        for image in found.images
    ]
    if deeper:
        raise OSError(
            f"In the folder {top.path!r}, images lie deeper than CLASS/*.jpg ({len(deeper):,}: "
            f"{_names(top, deeper)}), and it is not known which folder is their class: move them "
            "up into the class folders or away, or name a folder that holds class folders."
        )
    for folder in top.folders.values():
        files = [file for inner in folder.below() for file in inner.other if not _is_text(file)]
        if files and not folder.has_images():
            raise OSError(
                f"The folder {folder.path!r} would be a class, but holds {_kinds(files)} and no "
                "image that can be read: convert them, or move the folder away."
            )
    for file in top.other:
        if not os.path.exists(file):
            raise OSError(f"{file!r} is a link that leads nowhere: mend it, or take it away.")


def _is_text(file: str) -> bool:
    """Whether a file lies beside images to describe them, and is none itself."""
    return file.lower().endswith((".csv", ".html", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"))


def _instead_of_classes(top: Folder, layout: str) -> str:
    if top.images:
        return (
            "images, but no class folders, so they have no labels "
            f"({len(top.images):,}: {_names(top, top.images)}): images lie in it as CLASS/*.jpg."
        )
    files = [file for folder in top.below() for file in folder.other]
    if not files:
        return f"no files: images lie in it as {layout}."
    return (
        f"{_kinds(files)}, but no image that can be read: images lie in it as {layout}, "
        "unpacked and of a kind that Pillow reads."
    )


def _check_names(top: Folder, names: list[str]) -> None:
    """Refuse two class folders that are one class, or whose names nobody can tell apart."""
    same: dict[str, str] = {}
    for name in names:
        path = os.path.realpath(os.path.join(top.path, name))
        for key in (unicodedata.normalize("NFC", name).strip(), path):
            if key in same:
                raise OSError(
                    f"In the folder {top.path!r}, the class folders {same[key]!r} and {name!r} are "
                    "the same folder, or have names that only differ in blanks or in how Unicode "
                    "writes a letter: make them one."
                )
            same[key] = name


def _left_out(root: Folder, top: Folder) -> Iterator[str]:
    if top.images:
        yield f"images beside the class folders ({len(top.images):,}: {_names(root, top.images)})"
    empty = [folder.path for folder in top.folders.values() if not folder.has_images()]
    if empty:
        yield f"folders without images ({len(empty):,}: {_names(root, empty)})"
    found = list(root.below())
    if other := [file for folder in found for file in folder.other]:
        yield f"{_kinds(other)} that Pillow does not read ({_names(root, other)})"
    hidden = [path for folder in found for path in folder.hidden]
    if told := [path for path in hidden if is_image(path) or os.path.isdir(path)]:
        yield f"hidden images or folders ({len(told):,}: {_names(root, told)})"


def _names(root: Folder, files: Sequence[str]) -> str:
    return abbreviate([os.path.relpath(file, root.path) for file in files], 5)


def _kinds(files: Sequence[str]) -> str:
    """Return how many files there are of each kind, such as `12 files (.heic 10, .txt 2)`."""
    kinds = Counter(
        "link that leads nowhere"
        if not os.path.exists(file)
        else "link to a folder above"
        if os.path.isdir(file)
        else suffix(file) or "no suffix"
        for file in files
    )
    named = [f"{kind} {count:,}" for kind, count in kinds.most_common()]
    return f"{len(files):,} {'file' if len(files) == 1 else 'files'} ({abbreviate(named, 5)})"
