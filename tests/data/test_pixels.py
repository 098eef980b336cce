"""Pixels of images of every kind: what a model sees is what the image shows, or is refused."""

import struct

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import ViTImageProcessor

from clce_hf.data import HubDataset, evaluation_rows, load_splits, with_images
from clce_hf.data.transforms import UnreadableImageError
from clce_hf.errors import ArgumentError

SHARES = np.linspace(0, 1, 400).reshape(20, 20)
"""A gray image that is black at one corner and white at the other."""
LEVELS = (SHARES * 255).round().astype(np.uint8)
COLORS = np.stack([LEVELS, LEVELS.T, 255 - LEVELS], -1)
PROCESSOR = ViTImageProcessor(size={"height": 20, "width": 20}, do_normalize=False)


def pixels(dataset):
    """Shares of white of the first image as a model sees them, of shape (height, width, 3)."""
    [row] = with_images(dataset, evaluation_rows(PROCESSOR))[:1]["pixel_values"]
    return row.permute(1, 2, 0).numpy()


def of_file(file):
    rows = datasets.Dataset.from_dict({"image": [str(file)], "labels": [0]})
    return rows.cast_column("image", datasets.Image())


def of_column(folder, values, feature=None):
    """Rows of two classes with these values for images, stored and loaded."""
    rows = {"image": values, "label": ["a", "b"] * (len(values) // 2)}
    stored = datasets.Dataset.from_dict(rows)
    if feature is not None:
        stored = stored.cast_column("image", feature)
    for split in ("train", "test"):
        stored.to_parquet(folder / f"{split}.parquet")
    return load_splits(HubDataset(str(folder)))[0]


GRAY = {
    "16 bits, PNG": (SHARES * 65_535).round().astype(np.uint16),
    "16 bits, TIFF": (SHARES * 65_535).round().astype(np.uint16),
    "32 bits in 8, TIFF": LEVELS.astype(np.int32),
    "floats to 1, TIFF": SHARES.astype(np.float32),
    "floats to 255, TIFF": (SHARES * 255).astype(np.float32),
    "8 bits, PNG": LEVELS,
    "bits, PNG": LEVELS > 127,
    "black of 16 bits, PNG": np.zeros((20, 20), np.uint16),
}


@pytest.mark.parametrize("name", GRAY)
def test_white_is_white_and_black_is_black(tmp_path, name):
    file = tmp_path / ("x.png" if name.endswith("PNG") else "x.tif")
    Image.fromarray(GRAY[name]).save(file)
    right = {"b": SHARES > 0.5, "u": SHARES * (GRAY[name].max() > 0)}.get(
        GRAY[name].dtype.kind, SHARES
    )
    np.testing.assert_allclose(pixels(of_file(file)), right[..., None] * [1, 1, 1], atol=1.01 / 255)


def test_portable_gray_maps_of_16_bits(tmp_path):
    """Pillow reads them as 32 bits, scaled to 16."""
    file = tmp_path / "x.pgm"
    values = (SHARES * 4095).round().astype(">u2")
    file.write_bytes(b"P5 20 20 4095\n" + values.tobytes())
    np.testing.assert_allclose(pixels(of_file(file))[..., 0], SHARES, atol=1 / 255)


def test_tiff_files_of_12_bits(tmp_path):
    values = (SHARES * 4095).round().astype(int).ravel()
    pairs = zip(values[::2].tolist(), values[1::2].tolist(), strict=True)
    data = b"".join((a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    # Width, height, bits, no compression, black is 0, place, channels, rows, bytes.
    tags = {256: 20, 257: 20, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: len(data)}
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    header = b"II*\0" + struct.pack("<I", 8 + len(data))
    file = tmp_path / "x.tif"
    file.write_bytes(header + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    np.testing.assert_allclose(pixels(of_file(file))[..., 0], SHARES, atol=1 / 255)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_8_bits_are_what_stock_scripts_make_of_them(tmp_path, mode):
    file = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image = Image.fromarray(COLORS).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(LEVELS))
    image.save(file, **({"transparency": bytes(range(256))} if mode == "P" else {}))
    stock = Image.open(file).convert("RGBA").convert("RGB")
    np.testing.assert_allclose(pixels(of_file(file)) * 255, np.asarray(stock), atol=1e-3)


def test_photographs_are_turned_as_their_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    Image.fromarray(LEVELS).save(tmp_path / "x.png", exif=exif)
    seen = pixels(of_file(tmp_path / "x.png"))[..., 0]
    np.testing.assert_allclose(seen * 255, np.rot90(LEVELS, -1), atol=1e-3)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (LEVELS.astype(np.uint16), "16 bits, in which white is 65,535.* brightest pixel is 255"),
        (LEVELS.astype(np.int32) * 9, "integers from 0 to 2295"),
        (LEVELS.astype(np.int32) - 9, "integers from -9 to 246"),
        ((SHARES * 2 - 1).astype(np.float32), "floats from -1 to 1"),
        ((SHARES * 1.1).astype(np.float32), r"floats from 0 to 1\.1"),
        ((SHARES * 999).astype(np.float32), "floats from 0 to 999"),
        (np.where(SHARES > 0.5, np.nan, SHARES).astype(np.float32), "NaN"),
        (np.where(SHARES > 0.5, np.inf, SHARES).astype(np.float32), "floats from 0 to inf"),
    ],
)
def test_pixels_of_which_it_is_not_known_which_is_white(tmp_path, values, reason):
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(UnreadableImageError, match=rf"x\.tif cannot be read: .*{reason}") as named:
        pixels(of_file(tmp_path / "x.tif"))
    assert "\n" not in str(named.value)


def test_pixels_of_12_bits_are_almost_black_and_warned_of(tmp_path):
    Image.fromarray((SHARES * 4095).astype(np.uint16)).save(tmp_path / "x.png")
    with pytest.warns(UserWarning, match=r"12 bits have to be scaled"):
        assert pixels(of_file(tmp_path / "x.png")).max() < 0.07


ARRAYS = {
    "integers": (LEVELS.tolist(), None),
    "floats": (SHARES.tolist(), None),
    "bools": ((LEVELS > 127).tolist(), None),
    "colors last": (COLORS.tolist(), None),
    "colors first": (COLORS.transpose(2, 0, 1).tolist(), None),
    "floats of colors first": ((COLORS.transpose(2, 0, 1) / 255).tolist(), None),
    "one channel last": (LEVELS[..., None].tolist(), None),
    "one channel first": (LEVELS[None].tolist(), None),
    "Array2D of 16 bits": (
        (LEVELS.astype(int) * 257).tolist(),
        datasets.Array2D((20, 20), "uint16"),
    ),
    "Array3D": (COLORS.tolist(), datasets.Array3D((20, 20, 3), "uint8")),
    "Array3D of floats": (
        (COLORS.transpose(2, 0, 1) / 255).tolist(),
        datasets.Array3D((3, 20, 20), "float32"),
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_columns_of_arrays_are_images(tmp_path, name):
    values, feature = ARRAYS[name]
    train = of_column(tmp_path, [values] * 2, feature)
    right = COLORS if "olors" in name or name.startswith("Array3D") else LEVELS[..., None]
    right = (right > 127) * 255.0 if name == "bools" else right
    np.testing.assert_allclose(pixels(train) * 255, right * np.ones(3), atol=1e-3)
    assert np.asarray(train[0]["image"]).dtype == np.uint8  # as a report shows it


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (LEVELS.ravel().tolist(), "image column 'image': its rows are flat lists of numbers"),
        ([[COLORS.tolist()]], "arrays of 5 dimensions"),
        (3, r"image column 'image': it holds no images: Value\('int64'\)"),
    ],
)
def test_columns_that_hold_no_images(tmp_path, values, message):
    with pytest.raises(ArgumentError, match=message) as refused:
        of_column(tmp_path, [values] * 2)
    assert refused.value.argument == "image_column"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.stack([LEVELS] * 13, -1).tolist(), r"an array of shape \(20, 20, 13\)"),
        ((LEVELS.astype(int) + 1).tolist(), "integers from 1 to 256"),
        ([[1, 2], [3]], "its lists have different lengths"),
    ],
)
def test_an_array_that_is_no_image_is_named_by_its_row(tmp_path, value, reason):
    image = COLORS.tolist() if np.ndim(value[0][0]) else LEVELS.tolist()
    with pytest.raises(
        ValueError, match=f"The image in row 1 of 'train' cannot be read: .*{reason}"
    ):
        of_column(tmp_path, [image, value])


def test_flat_rows_that_were_stored_as_images(tmp_path):
    train = of_column(tmp_path, [Image.fromarray(LEVELS.reshape(400, 1))] * 2, datasets.Image())
    with pytest.raises(UnreadableImageError, match=r"row 0 .* 1 pixel wide and 400 high, a flat"):
        pixels(train)


def test_arrays_that_a_transform_meets_without_being_loaded():
    [seen] = evaluation_rows(PROCESSOR)({"image": [SHARES], "labels": [0]})["pixel_values"]
    np.testing.assert_allclose(seen[0].numpy(), SHARES, atol=1 / 255)
    with pytest.raises(UnreadableImageError, match="is missing"):
        evaluation_rows(PROCESSOR)({"image": [None], "labels": [0]})
