"""Flags that say where images are, whatever they are for."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from clce_hf.data.presets import PRESETS, Preset, find_preset
from clce_hf.data.sources import HubDataset, ImageFolders, Source
from clce_hf.errors import ArgumentError

DIGITS = "digits"
"""The benchmark where no other images are named."""


@dataclass
class ImageArguments:
    """Where images are; flags win over what a benchmark says.

    Raises:
        ValueError: unless the flags name one place, or none for the digits.
    """

    dataset_name: str | None = field(
        default=None, metadata={"help": "Name of a data set on the Hub."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Its configuration, where it has several."}
    )
    dataset_revision: str | None = field(
        default=None, metadata={"help": "Its branch, tag or commit."}
    )
    benchmark: str | None = field(
        default=None,
        metadata={"help": f"A data set with known columns and splits: {', '.join(PRESETS)}."},
    )
    benchmark_dir: str | None = field(
        default=None, metadata={"help": "Its folder, where it is not on the Hub."}
    )
    image_column_name: str | None = field(
        default=None, metadata={"help": "Column that holds the images; by default image."}
    )
    label_column_name: str | None = field(
        default=None, metadata={"help": "Column that holds the labels; by default label."}
    )

    _folder_flag = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value == "":  # as of a shell variable that is not set
                raise ArgumentError(name, "its value is empty: give one, or leave it out.")
        is_named = self.dataset_name is not None or self.benchmark is not None
        folders = self._folders()
        if folders and is_named:
            raise ValueError(f"Give {self._folder_flag}, or dataset_name or benchmark, not both.")
        if self.benchmark_dir is not None and self.benchmark is None:
            raise ValueError("benchmark_dir needs benchmark, whose images lie in it.")
        if not folders and not is_named:
            self.benchmark = DIGITS
        source = self.source  # refuses a benchmark or a folder that does not fit
        if source.image_column == source.label_column:
            flag = "label" if self.image_column_name is None else "image"
            raise ArgumentError(
                f"{flag}_column",
                f"images and labels cannot both be in the column {source.image_column!r}.",
            )

    def _folders(self) -> dict[str, str]:
        """Folders of images that the flags name, by split."""
        raise NotImplementedError

    @property
    def in_words(self) -> str:
        """The images as the flags name them."""
        return " and ".join(self._folders().values()) or str(self.dataset_name or self.benchmark)

    @property
    def preset(self) -> Preset | None:
        """The benchmark that the images are of, or None."""
        return None if self.benchmark is None else find_preset(self.benchmark)

    @property
    def source(self) -> Source:
        """Where the images are."""
        preset = self.preset
        if preset is not None:
            source = preset.stored_in(self.benchmark_dir)
        elif self.dataset_name is not None:
            source = HubDataset(self.dataset_name)
        else:
            source = ImageFolders(self._folders())
        flags: dict[str, Any] = {
            "image_column": self.image_column_name,
            "label_column": self.label_column_name,
        }
        if isinstance(source, HubDataset):
            name = self.dataset_name or source.name
            if name != source.name:  # a mirror has other commits
                source = dataclasses.replace(source, name=name, config=None, revision=None)
            flags |= {"config": self.dataset_config_name, "revision": self.dataset_revision}
        elif self.dataset_name or self.dataset_config_name or self.dataset_revision:
            title = "A folder of images" if preset is None else preset.title
            raise ValueError(
                f"{title} is not on the Hub: leave out dataset_name, dataset_config_name and "
                "dataset_revision."
            )
        return dataclasses.replace(
            source, **{name: value for name, value in flags.items() if value is not None}
        )
