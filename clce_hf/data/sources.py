"""Where images and labels are stored: on the Hub, in folders, or listed by annotations."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetsError

from clce_hf.data.folder_tree import scan
from clce_hf.data.listed_images import list_images
from clce_hf.data.split_folders import split_folders


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
        """Download the data set, or list the images of a folder of train/CLASS/*.jpg.

        Raises:
            OSError: if it cannot be had; the message says how to ask for access.
            ValueError: if it has no such configuration, or an empty split.
        """
        if self.config is None and self.revision is None and (trees := split_folders(self.name)):
            return list_images(trees, cache_dir, may_lack_labels=True)
        try:
            return load_dataset(
                self.name, self.config, revision=self.revision, cache_dir=cache_dir, token=token
            )
        except ValueError as error:
            reason = str(error)
            if "corresponds to no data" in reason:
                reason = f"one of its splits is empty ({reason})"
            raise ValueError(f"The data set {self.name!r} could not be loaded: {reason}") from error
        # `datasets` refuses loading scripts as RuntimeError.
        except (OSError, RuntimeError, DatasetsError) as error:
            is_generic = isinstance(error, DatasetGenerationError) and error.__cause__
            what = error.__cause__ if is_generic else error
            reason = f"The data set {self.name!r} could not be loaded: {what}"
            if not Path(self.name).exists():
                reason += (
                    "\nIf it is gated or private, ask for access on its page, then log in with "
                    "`hf auth login` or pass a token."
                )
            raise OSError(reason) from error


@dataclass(frozen=True)
class ImageFolders(Source):
    """Folders of images, CLASS/*.jpg, or of images and a `metadata.csv` as `imagefolder` reads it.

    Args:
        folders: by split.
        may_lack_labels: whether a folder may hold images and no class folders. It gets no labels.
    """

    folders: Mapping[str, str]
    may_lack_labels: bool = False

    def load(self, cache_dir: str | None = None, token: str | None = None) -> DatasetDict:
        """List the images, and log what is left out.

        Raises:
            OSError: if a folder is missing, or it is not known which images are of which class; the
                message names the folder and what is in the way.
        """
        trees = {}
        for split, folder in self.folders.items():
            if not Path(folder).is_dir():
                raise OSError(f"There is no folder {folder!r}.")
            trees[split] = scan(os.path.abspath(folder))
        return list_images(trees, cache_dir, self.may_lack_labels)


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
