"""What the Space takes and refuses."""

import importlib
import io
import re
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from support import ROOT
from support.photographs import COLORS, DOG, photographs, picture, zipped

from clce_hf.errors import UserError

SPACE = ROOT / "examples" / "space"


@pytest.fixture
def uploaded_images(monkeypatch):
    monkeypatch.syspath_prepend(str(SPACE))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    yield importlib.import_module("uploaded_images")
    del sys.modules["uploaded_images"]


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o120777 << 16
    return entry


REFUSED = {
    "no images": ({"cat/read me.txt": b"cats"}, "cat/1.jpg and dog/1.jpg"),
    "no folders": ({f"{i}.png": picture((9, 9, 9)) for i in range(9)}, "folder of its name"),
    "one class": (DOG, "add a folder of another"),
    "a class of one image": ({**DOG, "cat/1.png": picture((9, 9, 9))}, "add to cat 1, or leave"),
    "no image inside": ({**photographs(), "red/x.jpg": b"text"}, "Leave it out of the zip"),
    "a link": ({**photographs(), link("red/x.png"): b"/etc/passwd"}, "Leave it out of the zip"),
    "500 images": (
        {f"{i % 2}/{i}.png": b"" for i in range(500)},
        "500 images, and 200 are the most",
    ),
    "many classes": (
        {f"{i}/{k}.png": picture((9, 9, 9)) for i in range(21) for k in range(4)},
        "21 classes, and 20",
    ),
}


@pytest.mark.parametrize(("files", "fix"), REFUSED.values(), ids=REFUSED)
def test_a_zip_that_does_not_do_is_refused_with_the_fix(files, fix, tmp_path, uploaded_images):
    with pytest.raises(UserError, match=re.escape(fix)):
        uploaded_images.read_zip(zipped(tmp_path, files))


def test_a_zip_or_an_image_that_grows_is_refused(tmp_path, uploaded_images):
    bomb = {f"cat/{i}.png": bytes(30_000_000) for i in range(8)}
    with pytest.raises(UserError, match="240 MB when they are unpacked"):
        uploaded_images.read_zip(zipped(tmp_path, bomb, zipfile.ZIP_DEFLATED))
    file = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(file, "png")  # 9 KB
    with pytest.raises(UserError, match="exceeds limit of"):
        uploaded_images.read_zip(zipped(tmp_path, {**photographs(), "red/x.png": file.getvalue()}))


def in_splits(layout):
    """Photographs of which every third lies in test, the others in train."""
    files = photographs(6)
    return {
        layout.format(*name.split("/"), split="train" if i % 3 else "test"): content
        for i, (name, content) in enumerate(files.items())
    }


def as_the_page_names(folder, files):
    """The same files, written as the page names those of a folder."""
    for i, (name, content) in enumerate(files.items()):
        *_, above, class_name, _ = ["", *name.split("/")]
        (folder / f"{above}__{class_name}__{i}.png").write_bytes(content)
    return sorted(map(str, folder.glob("*.png")))


READERS = {
    "zip": lambda space, folder, files: space.read_zip(zipped(folder, files)),
    "folder": lambda space, folder, files: space.read_folder(as_the_page_names(folder, files)),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_classes_lie_below_splits_and_not_above_them(read, tmp_path, uploaded_images):
    for layout in ("{0}/{1}", "photos/{0}/{1}", "{split}/{0}/{1}", "photos/{split}/{0}/{1}"):
        images, _ = read(uploaded_images, tmp_path, in_splits(layout))
        assert images.features["labels"].names == list(COLORS)
        for file in tmp_path.iterdir():
            file.unlink()
    for layout in ("{0}/{split}/{1}", "photos/{0}/{split}/{1}"):
        with pytest.raises(UserError, match=r"whether blue/test, .* lay the images"):
            read(uploaded_images, tmp_path, in_splits(layout))


@pytest.mark.parametrize("damage", ["cut off", "no zip", "password", "wrong checksum"])
def test_a_zip_that_cannot_be_read_is_refused(damage, tmp_path, uploaded_images):
    file = Path(zipped(tmp_path, photographs()))
    content = bytearray(file.read_bytes())
    if damage == "cut off":
        content = content[: len(content) // 2]
    elif damage == "no zip":
        content = bytearray(b"photos")
    elif damage == "wrong checksum":
        content[100] ^= 0xFF
    else:
        content[content.index(b"PK\x01\x02") + 8] |= 1
    file.write_bytes(content)
    fix = "make one without" if damage == "password" else "make it anew"
    with pytest.raises(UserError, match=fix):
        uploaded_images.read_zip(str(file))


def test_what_is_no_image_is_left_out_and_nothing_is_unpacked(tmp_path, uploaded_images):
    strange = ("__MACOSX/red/._0.png", "red/.hidden.png", "red/notes.txt", "top.png")
    outside = {"../../red/up.png": COLORS["red"], "/blue/root.png": COLORS["blue"]}
    files = {f"photos/train/{name}": content for name, content in photographs().items()}
    files |= dict.fromkeys(strange, b"?") | {name: picture(c) for name, c in outside.items()}
    wide = picture(COLORS["green"], "jpeg", side=600)
    images, left_out = uploaded_images.read_zip(zipped(tmp_path, {**files, "green\\w.jpg": wide}))
    assert left_out == 5  # a name with dots leads out of the zip, and is no class
    assert images.features["labels"].names == ["blue", "green", "red"]
    assert [images["labels"].count(label) for label in range(3)] == [11, 11, 10]
    assert max(max(image.size) for image in images["image"]) == 256
    assert [file.name for file in tmp_path.iterdir()] == ["photos.zip"]
    assert not any((tmp_path / part).exists() for part in ("red", "../red", "../../red"))


@pytest.mark.usefixtures("uploaded_images")
def test_what_was_uploaded_is_said_by_class(tmp_path):
    file = zipped(tmp_path, photographs())
    _, found, _ = importlib.import_module("app").upload(file)
    assert found.startswith("**30 images of 3 classes: blue 10, green 10, red 10.** 21 to train")
    assert not Path(file).exists()


def test_a_model_is_an_id_of_the_hub(monkeypatch, uploaded_images):
    two_losses = importlib.import_module("two_losses")
    monkeypatch.setitem(sys.modules, "two_losses", two_losses)
    for name in ("/etc", "../models", "a/b/c"):
        with pytest.raises(UserError, match="is no model's id: name one of the Hub"):
            two_losses.check_model(name)
    with pytest.raises(UserError, match="see that the id is right"):
        two_losses.check_model("ann/nothing-there")
