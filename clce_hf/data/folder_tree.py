"""Read what lies in a folder and in those below it, once."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from PIL import Image, ImageFile


@dataclass
class Folder:
    """What lies in a folder, as paths.

    Attributes:
        path: of the folder.
        images: files that Pillow reads, by their suffix.
        other: files of another kind, and links that lead nowhere.
        hidden: hidden files and folders, and those of systems, such as __MACOSX.
        folders: the others by name, links to folders among them.
    """

    path: str
    images: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    folders: dict[str, "Folder"] = field(default_factory=dict)

    def below(self) -> Iterator["Folder"]:
        """Yield this folder and all those in it."""
        yield self
        for folder in self.folders.values():
            yield from folder.below()

    def has_images(self) -> bool:
        """Whether there are images at any depth."""
        return any(folder.images for folder in self.below())


def scan(path: str, _on_the_way: tuple[str, ...] = ()) -> Folder:
    """Read a folder and all those in it once, and follow links, but not into a folder above.

    Args:
        path: of the folder.

    Raises:
        OSError: if a folder cannot be read, or a name in it is not of Unicode.
    """
    found, on_the_way = Folder(path), (*_on_the_way, os.path.realpath(path))
    with os.scandir(path) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        if not _is_unicode(entry.name):
            raise OSError(f"{entry.path!r} has a name that is not in UTF-8: rename it.")
        if entry.name.startswith((".", "__")):  # as `datasets` leaves them out
            found.hidden.append(entry.path)
        elif entry.is_dir():
            if entry.is_symlink() and _leads_above(entry.path, on_the_way):
                found.other.append(entry.path)
            else:
                found.folders[entry.name] = scan(entry.path, on_the_way)
        elif is_image(entry.name) and entry.is_file():
            found.images.append(entry.path)
        else:
            found.other.append(entry.path)
    return found


def _is_unicode(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that Python could not decode
        return False
    return True


def _leads_above(link: str, on_the_way: Sequence[str]) -> bool:
    target = os.path.join(os.path.realpath(link), "")
    return any(os.path.join(folder, "").startswith(target) for folder in on_the_way)


def suffix(name: str) -> str:
    """Return the suffix of a file name in lower case, such as `.jpg`."""
    return os.path.splitext(name)[1].lower()


def is_image(name: str) -> bool:
    """Whether a file of this name is of a kind that Pillow reads."""
    return suffix(name) in _readable_suffixes()


@cache
def _readable_suffixes() -> frozenset[str]:
    """Suffixes of what Pillow decodes by itself, as it is installed."""
    kinds = Image.registered_extensions()  # which also makes Pillow know its kinds
    decoded = {
        kind
        for kind, (opener, _) in Image.OPEN.items()
        if not (isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile))
    }
    return frozenset(end for end, kind in kinds.items() if kind in decoded - {"MPEG"})
