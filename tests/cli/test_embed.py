"""Embeddings of images as a file, through the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset
from datasets import Image as ImageFeature
from PIL import Image
from support.benchmark_schemas import publish
from support.launching import launch
from support.tiny import CLASSES

from clce_hf.cli.main import main
from clce_hf.data import ImageFolders, evaluation_rows, load_labeled_images, with_images
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.pretrained import load_checkpoint


def embed(checkpoint, output, *flags):
    main(["embed", "--model_name_or_path", checkpoint, "--output", str(output), *flags])
    return load(output)


def load(file):
    return load_dataset("parquet", data_files=str(file), split="train")


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        embed(*arguments)
    assert ended.value.code not in (0, None)
    return str(ended.value.code) + capsys.readouterr().err


def captured(checkpoint, images, batch_size):
    """Embeddings by a forward pass that has nothing of the command in it."""
    model, processor, _ = load_checkpoint(checkpoint)
    rows = with_images(images, evaluation_rows(processor))
    capture = EmbeddingCapture(model.eval())
    parts = []
    for start in range(0, len(rows), batch_size):
        batch = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        with torch.no_grad():
            pixels = torch.stack([row["pixel_values"] for row in batch])
            parts.append(capture.run(model, {"pixel_values": pixels})[1])
    return torch.cat(parts).numpy()


def flatten(source, target):
    """The same images without their classes."""
    target.mkdir()
    for file in sorted(source.glob("*/*.png")):
        shutil.copy(file, target / f"{file.parent.name}-{file.name}")
    return target


def test_a_folder_becomes_a_data_set_to_search_in(folder, checkpoint, tmp_path, capsys):
    output = tmp_path / "new" / "embeddings.parquet"
    data = ["--data_dir", str(folder / "validation"), "--batch_size", "7"]
    embedded = embed(checkpoint, output, *data)
    printed = capsys.readouterr().out
    assert f"{output} contains 20 embeddings of 32 dimensions." in printed
    assert [file.name for file in output.parent.iterdir()] == [output.name]
    assert embedded.features == {
        "file_name": Value("string"),
        "label": ClassLabel(names=CLASSES),
        "class_name": Value("string"),
        "embedding": List(Value("float32"), length=32),
    }
    files = [f"{name}/{i}.png" for name in CLASSES for i in range(5)]
    assert embedded["file_name"][:] == files
    assert embedded["label"][:] == [i // 5 for i in range(20)]
    assert embedded["class_name"][:] == [file.split("/")[0] for file in files]
    images = load_labeled_images(ImageFolders({"test": str(folder / "validation")}))
    vectors = np.array(embedded["embedding"][:], np.float32)
    np.testing.assert_array_equal(vectors, captured(checkpoint, images, 7))
    embedded.add_faiss_index(column="embedding")
    scores, nearest = embedded.get_nearest_examples("embedding", vectors[3], k=2)
    assert nearest["file_name"][0] == files[3] and scores[0] == 0


def test_images_without_classes_have_no_labels(folder, checkpoint, tmp_path, capsys):
    flat = flatten(folder / "validation", tmp_path / "flat")
    embedded = embed(checkpoint, tmp_path / "flat.parquet", "--data_dir", str(flat))
    assert "20 images without labels" in capsys.readouterr().out
    assert embedded["file_name"][:] == sorted(file.name for file in flat.iterdir())
    assert set(embedded["label"][:]) == set(embedded["class_name"][:]) == {None}
    labeled = embed(
        checkpoint, tmp_path / "labeled.parquet", "--data_dir", str(folder / "validation")
    )
    assert embedded["embedding"][:] == labeled["embedding"][:]


def test_rows_of_a_data_set_are_numbered(hub, published, checkpoint, tmp_path):
    data = ["--dataset_name", "bob/animals", "--split", "train"]
    embedded = embed(checkpoint, tmp_path / "e.parquet", *data)
    assert embedded["row"][:] == list(range(16))
    assert embedded["class_name"][:] == [CLASSES[i % 4] for i in range(16)]
    assert "file_name" not in embedded.column_names


def test_hidden_labels_are_none(checkpoint, tmp_path):
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=CLASSES)})
    rows = {"image": [Image.new("RGB", (20, 20), (i, 0, 0)) for i in range(3)], "label": [-1] * 3}
    (tmp_path / "hidden").mkdir()
    hidden = Dataset.from_dict(rows, features=features)
    hidden.to_parquet(tmp_path / "hidden" / "test.parquet")
    data = ["--dataset_name", str(tmp_path / "hidden")]
    embedded = embed(checkpoint, tmp_path / "e.parquet", *data)
    assert embedded["row"][:] == [0, 1, 2] and set(embedded["label"][:]) == {None}


@pytest.mark.parametrize(
    "labels", [["b", "a", "b"], [7, 3, 7], [0.5, 0.25, 0.5], [True, False, True]]
)
def test_labels_of_any_type_are_classes(checkpoint, tmp_path, labels):
    (tmp_path / "any").mkdir()
    images = [Image.new("RGB", (20, 20), (i, 0, 0)) for i in range(3)]
    stored = Dataset.from_dict({"image": images, "label": labels})
    stored.to_parquet(tmp_path / "any" / "train.parquet")
    embedded = embed(checkpoint, tmp_path / "e.parquet", "--dataset_name", str(tmp_path / "any"))
    assert embedded["row"][:] == [0, 1, 2] and embedded["label"][:] == [1, 0, 1]
    assert embedded["class_name"][:] == [str(label) for label in labels]


def test_a_folder_with_metadata_has_its_classes(folder, checkpoint, tmp_path):
    flat = flatten(folder / "validation", tmp_path / "flat")
    files = sorted(file.name for file in flat.iterdir())
    # Not metadata.csv, which `datasets` leaves open.
    rows = [json.dumps({"file_name": file, "label": file[:3]}) for file in files]
    (flat / "metadata.jsonl").write_text("\n".join(rows))
    flags = ["--data_dir", str(flat), "--cache_dir", str(tmp_path / "cache")]
    embedded = embed(checkpoint, tmp_path / "e.parquet", *flags)
    assert sorted(embedded["file_name"]) == files
    assert embedded["class_name"][:] == [file[:3] for file in embedded["file_name"]]


def test_a_benchmark_that_selects_classes(hub, checkpoint, tmp_path):
    publish(hub, "fc100")
    flags = ["--benchmark", "fc100", "--cache_dir", str(tmp_path / "cache")]
    embedded = embed(checkpoint, tmp_path / "e.parquet", *flags)
    assert embedded["row"][:] == list(range(40))
    assert sorted(embedded["label"]) == sorted([*range(20)] * 2)


def test_unreadable_images_are_named_or_left_out(folder, checkpoint, tmp_path, capsys):
    shutil.copytree(folder / "validation", tmp_path / "some")
    data = ["--data_dir", str(tmp_path / "some"), "--batch_size", "3"]
    whole = embed(checkpoint, tmp_path / "whole.parquet", *data)
    for name in ("ant/1", "ant/3", "ant/4", "bee/0"):  # of the second batch, all
        (tmp_path / "some" / f"{name}.png").write_bytes(b"hello")
    output = tmp_path / "out" / "some.parquet"
    message = refused(capsys, checkpoint, output, *data)
    assert f"The image {tmp_path / 'some' / 'ant' / '1.png'} cannot be read" in message
    assert "Traceback" not in message and not list(output.parent.iterdir())
    embedded = embed(checkpoint, output, *data, "--skip_unreadable", "true")
    printed = " ".join(capsys.readouterr().out.split())
    assert "cannot be read: 4 images (ant/1.png, ant/3.png, ant/4.png, bee/0.png)" in printed
    kept = whole.filter(lambda file: file not in printed, input_columns="file_name")
    assert len(kept) == 16 and embedded[:] == kept[:]


def test_what_cannot_be_embedded_is_refused(folder, checkpoint, tmp_path, capsys):
    data = ["--data_dir", str(folder / "validation")]
    there, output = tmp_path / "there.parquet", tmp_path / "out.parquet"
    there.mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "x.png").write_bytes(b"hello")
    broken, processor, _ = load_checkpoint(checkpoint)
    broken.vit.layernorm.weight.data[5] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    processor.save_pretrained(tmp_path / "broken")
    cases = [
        ((tmp_path / "e.csv", *data), "--output: got"),
        ((there, *data), "--output: '"),
        (("/proc/none/e.parquet", *data), "--output: nothing can be written there"),
        (
            (output, "--data_dir", str(tmp_path / "empty")),
            "holds no files: images lie in it as CLASS/*.jpg or *.jpg.",
        ),
        ((output, "--data_dir", str(tmp_path / "no")), "There is no folder"),
        ((output, *data, "--label_column_name", "kind"), "--label_column_name: label column"),
        ((output, *data, "--batch_size", "0"), "--batch_size: got 0, but"),
        ((output, *data, "--classification_layer", "vit"), "is not one vector per image"),
        (
            (output, "--data_dir", str(tmp_path / "damaged"), "--skip_unreadable", "true"),
            "None of the 1 images can be read: x.png",
        ),
    ]
    for arguments, expected in cases:
        message = refused(capsys, checkpoint, *arguments)
        assert expected in message and "Traceback" not in message, message
    message = refused(capsys, str(tmp_path / "broken"), output, *data, "--batch_size", "5")
    expected = "Embeddings are not finite, those of ant/0.png, ant/1.png, ant/2.png for example:"
    assert expected in message
    message = refused(capsys, str(tmp_path), output, *data)
    assert "while loading the model" in message
    assert not output.exists() and not list(tmp_path.glob("*.unfinished"))


def test_an_older_file_stays_until_the_new_one_is_complete(checkpoint, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
    output, data = tmp_path / "e.parquet", ["--data_dir", str(tmp_path / "images")]
    embed(checkpoint, output, *data)
    before = output.read_bytes()
    (tmp_path / "images" / "2.png").write_bytes(b"hello")
    refused(capsys, checkpoint, output, *data, "--batch_size", "1")
    assert output.read_bytes() == before and not list(tmp_path.glob("*.unfinished"))


@pytest.mark.slow
def test_processes_share_the_images(folder, checkpoint, tmp_path):
    shutil.copytree(folder / "validation", tmp_path / "some")
    (tmp_path / "some" / "cat" / "2.png").write_bytes(b"hello")
    flags = ["--data_dir", str(tmp_path / "some"), "--batch_size", "3", "--skip_unreadable", "true"]
    alone = embed(checkpoint, tmp_path / "alone.parquet", *flags)
    output = tmp_path / "two.parquet"
    flags += ["--model_name_or_path", checkpoint, "--output", str(output)]
    done = launch("-m", "clce_hf", "embed", *flags)
    assert done.stdout.count("contains 19 embeddings") == 1
    assert done.stdout.count("cat/2.png") == 1
    together = load(output)
    assert together["file_name"][:] == alone["file_name"][:]
    np.testing.assert_allclose(together["embedding"][:], alone["embedding"][:], atol=1e-6)
