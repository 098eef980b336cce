"""Where images and labels are stored: on the Hub, in folders, or listed by annotations."""

import glob
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset

_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where images are stored, and in which columns.

    Args:
        image_column: column of the images.
        label_column: column of the labels.
    """

    image_column: str = "image"
    label_column: str = "label"

    def load(self, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
        """Return the splits as they are stored, by their names there.

        Args:
            cache_dir: where downloads are kept; None for the default place.
            token: for private and gated data sets; None for the one that is logged in.

        Raises:
            OSError: if they cannot be loaded.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class HubDataset(Source):
    """A data set of the Hub, or a folder laid out as one.

    Args:
        name: its id on the Hub, or the folder.
        config: configuration, where there are several.
        revision: branch, tag or commit; None for the main branch.
    """

    name: str
    config: str | None = None
    revision: str | None = None

    def load(self, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
        """Download the data set; the error says how to ask for access."""
        try:
            return load_dataset(
                self.name, self.config, revision=self.revision, cache_dir=cache_dir, token=token
            )
        except (OSError, RuntimeError) as error:  # datasets refuses loading scripts as RuntimeError
            raise OSError(
                f"The data set {self.name!r} could not be loaded: {error}\nIf it is gated or "
                "private, ask for access on its page, then log in with `hf auth login` or pass a "
                "token."
            ) from error


@dataclass(frozen=True)
class ImageFolders(Source):
    """Folders of images, CLASS/*.jpg.

    Args:
        folders: by split.
    """

    folders: Mapping[str, str]

    def load(self, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
        """List the images; a folder that is missing or empty, or holds several splits, is named."""
        files = {}
        for split, folder in self.folders.items():
            if not Path(folder).is_dir():
                raise OSError(f"There is no folder {folder!r}.")
            _check_is_one_split(Path(folder))
            if not any(file.is_file() for file in Path(folder).rglob("*")):
                raise OSError(
                    f"The folder {folder!r} holds no files: images lie in it as CLASS/*.jpg."
                )
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


@dataclass(frozen=True)
class Annotations(Source):
    """Images listed by annotation files in COCO's format, one category per image.

    Args:
        folder: that holds the files and, at the paths that they list, the images.
        files: their names, one file per split.
    """

    folder: str
    files: tuple[str, ...]

    def load(self, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
        """Read the annotations; images are opened when they are used."""
        return DatasetDict((file, self._read(file)) for file in self.files)

    def _read(self, file: str) -> Dataset:
        folder = Path(self.folder)
        listed = json.loads((folder / file).read_text(encoding="utf-8"))
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
        return Dataset.from_dict(rows, features=features)
