"""Fashion-MNIST as folders of images: the first of each class in each split.

apt-get install dataset-fashion-mnist
python benchmarks/studies/fashion_folders.py runs/fashion --train 300 --test 200
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ["tshirt", "trouser", "pullover", "dress", "coat"]
CLASSES += ["sandal", "shirt", "sneaker", "bag", "boot"]


def read(file, header):
    with gzip.open(file) as opened:
        return np.frombuffer(opened.read(), np.uint8, offset=header)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--source", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--train", type=int, default=300)
    parser.add_argument("--test", type=int, default=200)
    args = parser.parse_args()
    for split, prefix, count in (("train", "train", args.train), ("test", "t10k", args.test)):
        labels = read(f"{args.source}/{prefix}-labels-idx1-ubyte.gz", 8)
        images = read(f"{args.source}/{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        for label, name in enumerate(CLASSES):
            place = Path(args.folder, split, name)
            place.mkdir(parents=True, exist_ok=True)
            for row in np.flatnonzero(labels == label)[:count]:
                Image.fromarray(images[row]).convert("RGB").save(place / f"{row}.png")


if __name__ == "__main__":
    main()
