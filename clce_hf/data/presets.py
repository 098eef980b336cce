"""The twelve data sets of the paper (arXiv 2402.14551): where they lie and how they are split.

Ids, revisions, columns, splits and licenses are those that cards, listings and code of November
2026 show; nothing was downloaded for this table, and what they do not show is in `unverified`.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_CLASS_SPLITS = json.loads(Path(__file__).with_name("class_splits.json").read_text())


@dataclass(frozen=True)
class Part:
    """A split of a benchmark.

    Args:
        source: the split of the data set that it is, several joined by "+"; without a data set, the
            folder or the file of annotations.
        images: how many it holds, as published.
        classes: how many of them it holds.
    """

    source: str
    images: int
    classes: int


@dataclass(frozen=True)
class Benchmark:
    """Where the images of a benchmark are.

    Args:
        title: its name in the literature.
        splits: `train` and `validation`, `test` or both, of the same classes; or `train`,
            `validation` and `novel`, of different classes, for few-shot episodes.
        license: as its card or its authors state it.
        dataset: id on the Hub, None for a folder.
        revision: commit of the data set.
        config: configuration, where there are several.
        image_column: column of the images.
        label_column: column of the classes.
        split_column: column by whose ids the classes are split, where they are.
        gated: whether the Hub asks for consent first.
        layout: of the folder.
        unverified: what no source was found for.
    """

    title: str
    splits: dict[str, Part]
    license: str
    dataset: str | None = None
    revision: str | None = None
    config: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    split_column: str | None = None
    gated: bool = False
    layout: str = ""
    unverified: str = ""

    @property
    def is_few_shot(self) -> bool:
        """Whether the other splits have classes that are not trained."""
        return "novel" in self.splits


def class_split(benchmark: str, split: str) -> list[int]:
    """Return the ids, in the benchmark's `split_column`, of the classes of a split.

    CIFAR-FS: arXiv 1805.08136, FC100: arXiv 1805.10123, both as in torchmeta; tieredImageNet: arXiv
    1803.00676, from its authors' repository (renmengye/few-shot-ssl-public).
    """
    return _CLASS_SPLITS[benchmark][split]


_of_cifar = partial(
    Benchmark,
    dataset="uoft-cs/cifar100",
    revision="aadb3af77e9048adbea6b47c21a81e47dd092ae5",
    config="cifar100",
    license="unknown",
    image_column="img",
    label_column="fine_label",
)
_of_imagenet = partial(
    Benchmark,
    dataset="ILSVRC/imagenet-1k",
    revision="49e2ee26f3810fb5a7536bbf732a7b07389a47b5",
    license="ImageNet's terms: research alone",
    gated=True,
)

BENCHMARKS = {
    "cifar-100": _of_cifar(
        title="CIFAR-100",
        splits={"train": Part("train", 50_000, 100), "test": Part("test", 10_000, 100)},
    ),
    "cub-200-2011": Benchmark(
        title="CUB-200-2011",
        dataset="bentrevett/caltech-ucsd-birds-200-2011",
        revision="1ef09e021b0b65b40337f6f285909656f407f6e0",
        splits={"train": Part("train", 5_994, 200), "test": Part("test", 5_794, 200)},
        license="not found",
        unverified="license",
    ),
    "caltech-256": Benchmark(
        title="Caltech-256",
        dataset="ilee0022/Caltech-256",
        # The names are in `text`; `label` counts from 1.
        label_column="text",
        splits={
            "train": Part("train", 24_791, 257),
            "validation": Part("validation", 2_755, 257),
            "test": Part("test", 3_061, 257),
        },
        license="not on the card",
        unverified="revision (6adfe4d alone was seen), number of classes, license",
    ),
    "oxford-flowers-102": Benchmark(
        title="Oxford-Flowers-102",
        dataset="dpdl-benchmark/oxford_flowers102",
        revision="544b55c9af69a05742ead7571cd7ae23cfcd758b",
        splits={
            "train": Part("train", 1_020, 102),
            "validation": Part("validation", 1_020, 102),
            "test": Part("test", 6_149, 102),
        },
        license="not found",
        unverified="license",
    ),
    "oxford-iiit-pets": Benchmark(
        title="Oxford-IIIT-Pets",
        dataset="timm/oxford-iiit-pet",
        revision="10b688881011725fa2fa3d856a47536c9a7e6968",
        splits={"train": Part("train", 3_680, 37), "test": Part("test", 3_669, 37)},
        license="CC BY-SA 4.0",
    ),
    "inaturalist-2017": Benchmark(
        title="iNaturalist 2017",
        layout="train2017.json, val2017.json and train_val_images/KINGDOM/SPECIES/*.jpg",
        splits={
            "train": Part("train2017.json", 579_184, 5_089),
            "validation": Part("val2017.json", 95_986, 5_089),
        },
        license="its terms of use: research alone",
    ),
    "places365": Benchmark(
        title="Places365",
        layout="train/CLASS/*.jpg and val/CLASS/*.jpg",
        splits={
            "train": Part("train", 1_803_460, 365),
            "validation": Part("val", 36_500, 365),
        },
        license="not found",
        unverified="license",
    ),
    "imagenet-1k": _of_imagenet(
        title="ImageNet-1k",
        # Its test images have no labels.
        splits={
            "train": Part("train", 1_281_167, 1_000),
            "validation": Part("validation", 50_000, 1_000),
        },
    ),
    "cifar-fs": _of_cifar(
        title="CIFAR-FS",
        split_column="fine_label",
        splits={
            "train": Part("train+test", 38_400, 64),
            "validation": Part("train+test", 9_600, 16),
            "novel": Part("train+test", 12_000, 20),
        },
    ),
    "fc100": _of_cifar(
        title="FC100",
        split_column="coarse_label",
        splits={
            "train": Part("train+test", 36_000, 60),
            "validation": Part("train+test", 12_000, 20),
            "novel": Part("train+test", 12_000, 20),
        },
    ),
    "mini-imagenet": Benchmark(
        title="miniImageNet",
        dataset="GATE-engine/mini_imagenet",
        revision="f4fd85af7140e29002fdf9c121e38cc0bb7b3a1a",
        splits={
            "train": Part("train", 38_400, 64),
            "validation": Part("validation", 9_600, 16),
            "novel": Part("test", 12_000, 20),
        },
        license="not on the card",
        unverified="which classes its splits hold, license",
    ),
    "tiered-imagenet": _of_imagenet(
        title="tieredImageNet",
        split_column="label",
        splits={
            "train": Part("train", 448_695, 351),
            "validation": Part("train", 124_261, 97),
            "novel": Part("train", 206_209, 160),
        },
    ),
}
"""By the name that `--benchmark` and `load_benchmark` take."""
