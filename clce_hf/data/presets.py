"""Data sets by name: the twelve of the paper (arXiv 2402.14551) and the bundled digits.

Ids, revisions, columns and splits are those that cards, listings and code of November 2026 show;
nothing was downloaded for this table. docs/benchmarks.md has it with licenses and sizes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from clce_hf.data.digits import Digits
from clce_hf.data.sources import Annotations, HubDataset, ImageFolders, Source
from clce_hf.errors import ArgumentError

_CLASS_SPLITS = json.loads(Path(__file__).with_name("class_splits.json").read_bytes())


@dataclass(frozen=True)
class Part:
    """A split of a preset.

    Args:
        stored_as: the split of the source that it is, several joined by "+".
        classes: how many it holds, as published.
        ids: of its classes in the preset's `split_column`, where they are a part of the source's.
    """

    stored_as: str
    classes: int
    ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Preset:
    """Where the images of a known data set are, and how they are split.

    Args:
        title: its name in the literature.
        splits: `train` and `validation`, `test` or both, of the same classes; or `train`,
            `validation` and `novel`, of different classes, for few-shot episodes.
        source: where it is stored; None where a folder has to be named.
        layout: what that folder holds.
        split_column: column by whose ids the classes are split, where they are.
        may_be_augmented: whether its images keep their class when they are flipped or cropped.
    """

    title: str
    splits: dict[str, Part]
    source: Source | None = None
    layout: str = ""
    split_column: str | None = None
    may_be_augmented: bool = True

    @property
    def is_few_shot(self) -> bool:
        """Whether the other splits have classes that are not trained."""
        return "novel" in self.splits

    def stored_in(self, folder: str | None) -> Source:
        """Return where the images are.

        Args:
            folder: of a preset that has no source.

        Raises:
            ArgumentError: if the folder is missing, or is named where there is a source.
        """
        if self.source is not None:
            if folder is not None:
                raise ArgumentError("folder", f"{self.title} needs no folder: leave it out.")
            return self.source
        if folder is None:
            raise ArgumentError(
                "folder", f"{self.title} is not on the Hub: name a folder with {self.layout}."
            )
        files = tuple(part.stored_as for part in self.splits.values())
        if files[0].endswith(".json"):
            return Annotations(folder, files)
        return ImageFolders({file: str(Path(folder) / file) for file in files})


def _by_class(name: str, stored_as: str, **classes: int) -> dict[str, Part]:
    """Return splits by class of a data set, with the ids of `class_splits.json`.

    CIFAR-FS: arXiv 1805.08136, FC100: arXiv 1805.10123, both as in torchmeta; tieredImageNet: arXiv
    1803.00676, from its authors' repository (renmengye/few-shot-ssl-public).
    """
    ids = _CLASS_SPLITS[name]
    return {split: Part(stored_as, size, tuple(ids[split])) for split, size in classes.items()}


_CIFAR_100 = HubDataset(
    "uoft-cs/cifar100",
    "cifar100",
    "aadb3af77e9048adbea6b47c21a81e47dd092ae5",
    image_column="img",
    label_column="fine_label",
)
_IMAGENET_1K = HubDataset("ILSVRC/imagenet-1k", revision="49e2ee26f3810fb5a7536bbf732a7b07389a47b5")

PRESETS = {
    "cifar-100": Preset(
        "CIFAR-100", {"train": Part("train", 100), "test": Part("test", 100)}, _CIFAR_100
    ),
    "cub-200-2011": Preset(
        "CUB-200-2011",
        {"train": Part("train", 200), "test": Part("test", 200)},
        HubDataset(
            "bentrevett/caltech-ucsd-birds-200-2011",
            revision="1ef09e021b0b65b40337f6f285909656f407f6e0",
        ),
    ),
    "caltech-256": Preset(
        "Caltech-256",
        {name: Part(name, 257) for name in ("train", "validation", "test")},
        # The names are in `text`; `label` counts from 1.
        HubDataset("ilee0022/Caltech-256", label_column="text"),
    ),
    "oxford-flowers-102": Preset(
        "Oxford-Flowers-102",
        {name: Part(name, 102) for name in ("train", "validation", "test")},
        HubDataset(
            "dpdl-benchmark/oxford_flowers102", revision="544b55c9af69a05742ead7571cd7ae23cfcd758b"
        ),
    ),
    "oxford-iiit-pets": Preset(
        "Oxford-IIIT-Pets",
        {"train": Part("train", 37), "test": Part("test", 37)},
        HubDataset("timm/oxford-iiit-pet", revision="10b688881011725fa2fa3d856a47536c9a7e6968"),
    ),
    "inaturalist-2017": Preset(
        "iNaturalist 2017",
        {"train": Part("train2017.json", 5_089), "validation": Part("val2017.json", 5_089)},
        layout="train2017.json, val2017.json and train_val_images/KINGDOM/SPECIES/*.jpg",
    ),
    "places365": Preset(
        "Places365",
        {"train": Part("train", 365), "validation": Part("val", 365)},
        layout="train/CLASS/*.jpg and val/CLASS/*.jpg",
    ),
    "imagenet-1k": Preset(
        "ImageNet-1k",
        # Its test images have no labels.
        {name: Part(name, 1_000) for name in ("train", "validation")},
        _IMAGENET_1K,
    ),
    "cifar-fs": Preset(
        "CIFAR-FS",
        _by_class("cifar-fs", "train+test", train=64, validation=16, novel=20),
        _CIFAR_100,
        split_column="fine_label",
    ),
    "fc100": Preset(
        "FC100",
        _by_class("fc100", "train+test", train=60, validation=20, novel=20),
        _CIFAR_100,
        split_column="coarse_label",
    ),
    "mini-imagenet": Preset(
        "miniImageNet",
        {
            "train": Part("train", 64),
            "validation": Part("validation", 16),
            "novel": Part("test", 20),
        },
        HubDataset(
            "GATE-engine/mini_imagenet", revision="f4fd85af7140e29002fdf9c121e38cc0bb7b3a1a"
        ),
    ),
    "tiered-imagenet": Preset(
        "tieredImageNet",
        _by_class("tiered-imagenet", "train", train=351, validation=97, novel=160),
        _IMAGENET_1K,
        split_column="label",
    ),
    "digits": Preset(
        "scikit-learn's digits",
        {"train": Part("train", 10), "test": Part("test", 10)},
        Digits(),
        may_be_augmented=False,
    ),
}
"""By the name that `load_benchmark` takes."""


def find_preset(name: str) -> Preset:
    """Return the preset of this name.

    Raises:
        ArgumentError: if there is none; the message lists them.
    """
    if name not in PRESETS:
        raise ArgumentError(
            "benchmark", f"There is no benchmark {name!r}: name one of {', '.join(PRESETS)}."
        )
    return PRESETS[name]
