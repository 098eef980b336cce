"""Photographs of one color that a visitor of the Space uploads."""

import io
import zipfile

import numpy as np
from PIL import Image

COLORS = {"blue": (40, 40, 200), "green": (30, 180, 60), "red": (220, 30, 30)}


def picture(color, kind="png", side=24):
    noise = np.random.default_rng(sum(color)).integers(-20, 20, (side, side, 3))
    pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def photographs(count=10):
    return {f"{name}/{i}.png": picture(c) for name, c in COLORS.items() for i in range(count)}


def zipped(folder, files, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(folder / "photos.zip", "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(folder / "photos.zip")


DOG = {f"dog/{i}.png": picture((90, 60, 30)) for i in range(4)}
