"""The labeled images of an uploaded zip or folder: checked, made small, and kept in memory alone.

Nothing is unpacked to the disk, so no name in a zip and no link in it leads anywhere.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from zipfile import BadZipFile, ZipFile, ZipInfo

from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PillowImage

from clce_hf.data import with_images
from clce_hf.data.class_folders import SPLITS
from clce_hf.data.folder_tree import is_image
from clce_hf.data.pixels import to_rgb
from clce_hf.data.transforms import UnreadableImageError
from clce_hf.errors import UserError, abbreviate

MAX_IMAGES, MAX_CLASSES, MIN_IMAGES = 200, 20, 4
MAX_MEGABYTES = 200
SIDE = 256
"""Pixels of the longer side of an image as it is kept."""

PillowImage.MAX_IMAGE_PIXELS = 25_000_000  # Pillow warns above it, and refuses twice as many

Files = Iterable[tuple[str, str, bytes]]
"""The class, name and content of each image."""


def read_zip(file: str) -> tuple[Dataset, int]:
    """Return the images of a zip, CLASS/name.jpg, and the number of other files, left out.

    Raises:
        UserError: for what cannot be read, or is not what two losses can be compared on; the
            message names the fix.
    """
    try:
        with ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            images = [member for member in members if _folders_of(member) is not None]
            _check_size(len(images), sum(member.file_size for member in images))
            _check_is_open(members)
            _check_layout(filter(None, map(_folders_of, images)))
            return _dataset(_contents(archive, images)), len(members) - len(images)
    # Of a compression that Python does not know, the second; of a damaged one, several others.
    except (BadZipFile, NotImplementedError, OSError, EOFError, ValueError) as error:
        if isinstance(error, UnreadableImageError):
            raise UserError(f"{error} Leave it out of the zip.") from error
        raise UserError(f"The zip cannot be read ({error}): make it anew.") from error


def read_folder(files: list[str]) -> tuple[Dataset, int]:
    """Return the same of the files of a folder, which the page named ABOVE__CLASS__number.jpg.

    Raises:
        UserError: as `read_zip`.
    """
    folders = [Path(file).name.rpartition("__")[0].partition("__") for file in files]
    if not all(name for *_, name in folders):
        raise UserError(
            "A folder that is dropped here comes without the names of the folders in it: click and "
            "choose it, or upload a zip."
        )
    named = zip(folders, map(Path, files), strict=True)
    images = [(above, name, file) for (above, _, name), file in named if is_image(file.name)]
    _check_size(len(images), sum(file.stat().st_size for *_, file in images))
    _check_layout((above, name) for above, name, _ in images)
    try:
        contents = ((name, file.name, file.read_bytes()) for _, name, file in images)
        return _dataset(contents), len(files) - len(images)
    except UnreadableImageError as error:
        raise UserError(f"{error} Leave it out of the folder.") from error


def _folders_of(member: ZipInfo) -> tuple[str, str] | None:
    """Return the folder above that of an image, and its own, the class; None for anything else."""
    parts = member.filename.replace("\\", "/").split("/")
    hidden = any(part.startswith((".", "__")) for part in parts)  # __MACOSX, ._1.jpg, ..
    if hidden or len(parts) < 2 or not parts[-2] or not is_image(parts[-1]):
        return None
    above, name = (unicodedata.normalize("NFC", part).strip() for part in ["", *parts][-3:-1])
    return above, name


def _contents(archive: ZipFile, images: list[ZipInfo]) -> Files:
    for member in images:
        if folders := _folders_of(member):
            yield folders[1], member.filename, archive.read(member)


def _check_layout(folders: Iterable[tuple[str, str]]) -> None:
    """Refuse classes of one name in several folders, unless these are splits: cat/train, dog/train.

    Args:
        folders: the folder above that of each image, and its own.
    """
    places: dict[str, set[str]] = defaultdict(set)
    for above, name in folders:
        if above.lower() not in SPLITS:
            places[name].add(f"{above}/{name}".lstrip("/"))
    if several := [place for found in places.values() if len(found) > 1 for place in sorted(found)]:
        raise UserError(
            f"It is not known whether {abbreviate(several, 4)} are named by the class or lie in a "
            "folder of its name: lay the images out as cat/1.jpg and dog/1.jpg, or as "
            "train/cat/1.jpg and test/cat/1.jpg."
        )


def _check_is_open(members: list[ZipInfo]) -> None:
    if any(member.flag_bits & 1 for member in members):
        raise UserError("The zip has a password: make one without.")


def _check_size(images: int, size: int) -> None:
    if images == 0:
        raise UserError(
            "There are no images in folders: put those of each class into a folder of its name, "
            "such as cat/1.jpg and dog/1.jpg, as JPEG, PNG or WebP."
        )
    if images > MAX_IMAGES:
        raise UserError(
            f"These are {images:,} images, and {MAX_IMAGES} are the most that train in two "
            "minutes: leave some of each class out."
        )
    if size > MAX_MEGABYTES * 10**6:
        raise UserError(
            f"The images take {size / 10**6:,.0f} MB when they are unpacked, and {MAX_MEGABYTES} "
            f"are the most: make them smaller, {SIDE} pixels are enough."
        )


def _check_classes(counts: Counter[str]) -> None:
    if len(counts) == 1:
        raise UserError(
            f"All images are of one class, {next(iter(counts))!r}: add a folder of another one."
        )
    if len(counts) > MAX_CLASSES:
        raise UserError(
            f"These are {len(counts)} classes, and {MAX_CLASSES} are the most: leave some out."
        )
    if few := [f"{name} {count}" for name, count in counts.items() if count < MIN_IMAGES]:
        raise UserError(
            f"Each class needs {MIN_IMAGES} images or more, some to train on and some to test on: "
            f"add to {abbreviate(few, 5)}, or leave it out."
        )


def _dataset(files: Files) -> Dataset:
    """Return the images, at most `SIDE` pixels wide and high, with columns `image` and `labels`."""
    by_class: dict[str, list[dict[str, object]]] = defaultdict(list)
    for class_name, name, content in files:
        by_class[class_name].append({"bytes": content, "path": name})
    names = sorted(by_class)
    _check_classes(Counter({name: len(by_class[name]) for name in names}))
    rows = {
        "image": [image for name in names for image in by_class[name]],
        "labels": [label for label, name in enumerate(names) for _ in by_class[name]],
    }
    features = Features({"image": Image(), "labels": ClassLabel(names=names)})
    stored = with_images(Dataset.from_dict(rows, features=features), _shrink)
    return Dataset.from_dict({**rows, "image": list(_images(stored))}, features=features)


def _images(stored: Dataset) -> Iterator[PillowImage.Image]:
    return (stored[row]["image"] for row in range(len(stored)))


def _shrink(rows: dict[str, list]) -> dict[str, list]:
    images = [to_rgb(image) for image in rows["image"]]
    for image in images:
        image.thumbnail((SIDE, SIDE))
    return {**rows, "image": images}
