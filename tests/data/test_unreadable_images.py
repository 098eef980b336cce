"""Images that are missing or damaged end in one line that names the file or the row."""

import io
import struct
import zlib

import datasets
import pytest
from PIL import Image
from transformers import ViTImageProcessor

from clce_hf.data import HubDataset, evaluation_rows, load_splits, with_images
from clce_hf.data.transforms import UnreadableImageError

GRAY = Image.new("L", (20, 20), 128)
PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})


def png(image=GRAY):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def chunks(*parts):
    header = (b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (header, *parts, (b"IEND", b""))
    )


DAMAGED = {
    "truncated": (png(Image.effect_noise((20, 20), 50))[:200], "truncated"),
    "text": (b"hello", "it is no image of a kind that Pillow reads"),
    "empty": (b"", "it is no image"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "deflated wrongly": (chunks((b"IDAT", b"garbage!")), "broken data stream"),
    "a bomb of text": (chunks((b"zTXt", b"k\0\0" + zlib.compress(b"a" * (2 << 20)))), "too large"),
    "a bomb of pixels": (png(Image.new("1", (20_000, 20_000))), "DecompressionBombError: .*limit"),
}


def reading(dataset, row):
    return with_images(dataset, evaluation_rows(PROCESSOR))[row]


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_pillow_raises_names_the_file_or_the_row(tmp_path, name):
    data, reason = DAMAGED[name]
    (tmp_path / "x.png").write_bytes(data)
    GRAY.save(tmp_path / "good.png")
    files = [str(tmp_path / "good.png"), str(tmp_path / "x.png")]
    for images, named in ((files, r"/x\.png"), ([png(), data], "in row 1")):
        rows = datasets.Dataset.from_dict({"image": images, "labels": [0, 1]})
        rows = rows.cast_column("image", datasets.Image())
        assert reading(rows, 0)["labels"] == 0
        with pytest.raises(UnreadableImageError, match=f"{named} cannot be read: .*{reason}") as no:
            reading(rows, 1)
        assert "\n" not in str(no.value)


def test_a_row_keeps_its_number_when_rows_are_shuffled_and_drawn():
    rows = datasets.Dataset.from_dict({"image": [png()] * 9 + [b"x"], "labels": list(range(10))})
    drawn = rows.cast_column("image", datasets.Image()).shuffle(seed=0).select(range(2, 10))
    place = drawn["labels"][:].index(9)
    assert place != 9
    with pytest.raises(UnreadableImageError, match="in row 9 cannot"):
        reading(drawn, place)
    assert reading(drawn, slice(0, place))["labels"] == drawn["labels"][:place]


def test_missing_images_are_refused_when_they_are_loaded(tmp_path):
    rows = {"image": [GRAY, None, GRAY, None], "label": ["a", "b"] * 2}
    stored = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    stored.to_parquet(tmp_path / "train.parquet")
    missing = r"2 of 4 rows have no image \(None\) in the column 'image' of 'train', .* 1, 3"
    with pytest.raises(ValueError, match=missing):
        load_splits(HubDataset(str(tmp_path)))
    with pytest.raises(UnreadableImageError, match=r"The image in row 1 is missing \(None\)"):
        reading(stored, 1)
