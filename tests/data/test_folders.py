"""Folders as they are found: classes that are meant, and what is left out or refused."""

import json
import os
import re
import unicodedata

import pytest
from PIL import Image

from clce_hf.data import HubDataset, ImageFolders, load_labeled_images, load_splits
from clce_hf.errors import ArgumentError

GRAY = Image.new("L", (9, 7), 128)
BOTH = {"ant": 4, "bee": 4}


def put(root, *files):
    """Write files of these paths, images where they have the suffix of one."""
    for name in files:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix.lower() in (".png", ".jpg"):
            GRAY.save(file, format="PNG")
        else:
            file.write_bytes(b"x")


def some(folder, suffix=".png"):
    return [f"{folder}/{i}{suffix}" for i in range(4)]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    put(root, *some("ant"), *some("bee"))
    return root


def counts(*splits):
    """Images of each class in these splits."""
    names = splits[0].features["labels"].names
    labels = [label for split in splits for label in split["labels"]]
    return {name: labels.count(i) for i, name in enumerate(names)}


def load(root):
    return counts(*load_splits(ImageFolders({"train": str(root)}), held_out_share=0.5))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["sheet.png", "x.jpg"], "images beside the class folders (2: sheet.png, x.jpg)"),
        (["notes.txt", "bee/a.heic"], "2 files (.txt 1, .heic 1) that Pillow does not read ("),
        (["photos.zip", "bee/x"], "read (photos.zip, bee/x)"),
        (["metadata.csv"], "1 file (.csv 1)"),
        (["annotations/1.xml", "annotations/2.XML"], "folders without images (1: annotations)"),
        (
            ["__MACOSX/ant/1.png", ".ipynb_checkpoints/1.png", "ant/._0.png"],
            "hidden images or folders (3: .ipynb_checkpoints, __MACOSX, ant/._0.png)",
        ),
    ],
)
def test_what_lies_besides_is_left_out_and_said(photos, caplog, files, said):
    put(photos, *files)
    assert load(photos) == BOTH
    [line] = caplog.messages
    assert line.startswith(f"Left out of the folder {str(photos)!r}: ") and said in line


def test_nothing_is_said_where_nothing_is_amiss(photos, caplog):
    put(photos, ".DS_Store", "ant/.gitkeep", *some("cow", ".JPG"))
    assert load(photos) == {**BOTH, "cow": 4}
    assert not caplog.messages


def test_an_empty_class_folder_is_said(photos, caplog):
    (photos / "cow").mkdir()
    assert load(photos) == BOTH
    assert "folders without images (1: cow)" in caplog.text


def test_links_are_followed(photos, tmp_path):
    put(tmp_path / "elsewhere", *some("cow"), "ant.png")
    os.symlink(tmp_path / "elsewhere" / "cow", photos / "cow")
    os.symlink(tmp_path / "elsewhere" / "ant.png", photos / "ant" / "linked.png")
    os.symlink(photos, tmp_path / "linked")
    assert load(tmp_path / "linked") == {"ant": 5, "bee": 4, "cow": 4}


def test_links_that_lead_into_a_circle_or_nowhere_are_left_out(photos, caplog):
    os.symlink(photos.parent, photos / "ant" / "again")
    os.symlink(photos / "nothing.png", photos / "bee" / "nothing.png")
    assert load(photos) == BOTH
    assert "link to a folder above 1" in caplog.text
    assert "link that leads nowhere 1" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([f"{name}/{year}/1.png" for name in ("ant", "cow") for year in (1, 2)], "ant/1/1.png"),
        (some("bee/augmented"), "images lie deeper than CLASS/*.jpg (4: bee/augmented/0.png, "),
        (some("cow", ".heic"), "cow' would be a class, but holds 4 files (.heic 4) and no image"),
        (some("bee "), "the class folders 'bee' and 'bee ' are the same folder, or have names"),
    ],
)
def test_what_cannot_be_meant_is_refused(photos, files, message):
    put(photos, *files)
    with pytest.raises(OSError, match=re.escape(message)):
        load(photos)


def test_a_class_of_two_forms_of_unicode(photos):
    put(photos, *some("\u00e5"), *some("a\u030a"))
    with pytest.raises(OSError, match="only differ in blanks or in how Unicode writes a letter"):
        load(photos)


def test_a_class_folder_that_is_a_link_to_another_or_to_nothing(photos):
    os.symlink(photos / "ant", photos / "cow")
    with pytest.raises(OSError, match="'ant' and 'cow' are the same folder"):
        load(photos)
    (photos / "cow").unlink()
    os.symlink(photos / "nothing", photos / "cow")
    with pytest.raises(OSError, match="cow' is a link that leads nowhere"):
        load(photos)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["1.png", "2.png"], "holds images, but no class folders, so they have no labels (2: 1.pn"),
        (["photos.zip"], "holds 1 file (.zip 1), but no image that can be read"),
        (some("ant", ".heic"), "holds 4 files (.heic 4), but no image that can be read"),
        ([*some("train"), *some("test")], "holds test, train: name one of them"),
    ],
)
def test_a_folder_without_classes(tmp_path, files, message):
    put(tmp_path / "photos", *files)
    for load_images in (load_splits, load_labeled_images):
        with pytest.raises(OSError, match=re.escape(message)):
            load_images(ImageFolders({"train": str(tmp_path / "photos")}))


def test_one_class_alone_can_be_evaluated_but_not_trained(tmp_path):
    put(tmp_path / "photos", *some("ant"))
    assert len(load_labeled_images(ImageFolders({"test": str(tmp_path / "photos")}))) == 4
    with pytest.raises(ValueError, match="All 4 training images are of one class, 'ant'"):
        load_splits(ImageFolders({"train": str(tmp_path / "photos"), "test": str(tmp_path)}))


def test_a_name_that_is_not_of_unicode(photos):
    os.mkdir(os.fsencode(photos) + b"/\xe9")
    with pytest.raises(OSError, match=r"/\\udce9' has a name that is not in UTF-8"):
        load(photos)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (unicodedata.normalize("NFD", "\u00e5"), None),
        ("\u00c5", "'\u00c5' (trained is '\u00e5')"),
        ("\u00e5 ", "'\u00e5 ' (trained is '\u00e5')"),
    ],
)
def test_a_class_that_is_written_otherwise_in_the_validation_images(photos, name, message):
    put(photos, *some("\u00e5"))
    put(photos.parent / "val", *some(name))
    source = ImageFolders({"train": str(photos), "validation": str(photos.parent / "val")})
    if message is None:
        assert counts(load_splits(source)[1]) == {"ant": 0, "bee": 0, "\u00e5": 4}
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            load_splits(source)


@pytest.mark.parametrize("files", [some("ant"), [f"{i}.png" for i in range(8)]])
def test_metadata_that_lists_the_images(tmp_path, caplog, files):
    put(tmp_path, *files)
    rows = [{"file_name": file, "label": "xy"[i % 2]} for i, file in enumerate(files[:4])]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert load(tmp_path) == {"x": 2, "y": 2}
    assert ("4 of 8 images, which its metadata does not list" in caplog.text) == (len(files) == 8)


def test_metadata_that_does_not_fit(photos):
    put(photos.parent / "val", *some("ant"))
    (photos / "metadata.jsonl").write_text('{"file_name": "ant/0.png", "label": "ant"}\n')
    source = ImageFolders({"train": str(photos), "validation": str(photos.parent / "val")})
    with pytest.raises(OSError, match="val' has no metadata file that lists its images"):
        load_splits(source)
    (photos / "metadata.jsonl").write_text('{"file_name": "ant/0.png"}\n{"file_name": 1}\n')
    with pytest.raises(OSError, match=f"the metadata of {photos} lists cannot be loaded"):
        load(photos)


def test_a_data_set_that_is_a_folder_of_folders(tmp_path, caplog):
    """Its test images have no labels, and need none; `datasets` drops the labels of all splits."""
    put(tmp_path, *some("train/ant"), *some("train/bee"), *some("val/ant"), *some("test"))
    put(tmp_path, "train/sheet.png")
    source = HubDataset(str(tmp_path))
    train, validation = load_splits(source)
    assert (counts(train), counts(validation)) == (BOTH, {"ant": 4, "bee": 0})
    assert "images beside the class folders (1: sheet.png)" in caplog.text
    with pytest.raises(ArgumentError, match="the images of 'test' have no labels: in a folder"):
        load_labeled_images(source)


def test_a_data_set_that_is_a_folder_of_classes(photos):
    assert counts(*load_splits(HubDataset(str(photos)), held_out_share=0.5)) == BOTH
    put(photos, *some("ant/augmented"))
    with pytest.raises(OSError, match="images lie deeper"):
        load_splits(HubDataset(str(photos)))
