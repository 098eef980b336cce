"""Pushing to the Hub, and reading from it."""

import functools
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, snapshot_download
from PIL import Image
from support.pushing import (
    PROCESSOR,
    TOKEN,
    make_trainer,
    repository,
    root_files,
    run_without_the_package,
)
from support.tiny import CLASSES, StopAt, beit, logged, vit
from transformers import AutoModelForImageClassification

LOADING = """
import json, torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification
processor = AutoImageProcessor.from_pretrained("REPOSITORY")
model, loading = AutoModelForImageClassification.from_pretrained(
    "REPOSITORY", output_loading_info=True)
assert not any(loading.values()), loading
with torch.no_grad():
    inputs = processor(Image.open("image.jpg"), return_tensors="pt")
    print(json.dumps(model(**inputs).logits[0].tolist()))
"""


def test_a_pushed_model_loads_anywhere(hub, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8))
    image.save(tmp_path / "image.jpg")
    pixels = PROCESSOR(Image.open(tmp_path / "image.jpg"), return_tensors="pt")["pixel_values"]
    script, logits = "", []
    for build, projection_dim in ((vit, 8), (beit, None)):
        name = f"ann/{build.__name__}"
        trainer = make_trainer(
            tmp_path / name, build, projection_dim=projection_dim, hub_model_id=name
        )
        trainer.train()
        trainer.push_to_hub(pictures=True)
        pushed = repository(hub, name)
        assert pushed.commits == ["End of training"]
        expected = {
            *("README.md", "config.json", "model.safetensors", "preprocessor_config.json"),
            *("training_args.bin", "training_curve.png", "embeddings.png"),
        }
        head = {"projection_head.safetensors"} if projection_dim else set()
        assert root_files(pushed) == set(pushed.files) == expected | head
        for file in ("training_curve.png", "embeddings.png"):
            picture = Image.open(io.BytesIO(pushed.files[file])).convert("L")
            assert np.asarray(picture).std() > 5
        with torch.no_grad():
            logits.append(trainer.model.eval()(pixels).logits[0])
        script += LOADING.replace("REPOSITORY", name)
        script += pushed.files["README.md"].decode().split("```python\n")[1].split("```")[0]

    printed, warned = run_without_the_package(script, cwd=tmp_path)
    lines = printed.strip().splitlines()
    for expected, loaded, classified in zip(logits, lines[::2], lines[1::2], strict=True):
        torch.testing.assert_close(torch.tensor(json.loads(loaded)), expected)
        best = eval(classified)[0]
        assert best["label"] == CLASSES[expected.argmax()]
        assert best["score"] == pytest.approx(expected.softmax(0).max().item(), abs=1e-5)
    assert "newly initialized" not in warned and "not used" not in warned


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_every_strategy_uploads_what_it_says(hub, tmp_path, strategy):
    trainer = make_trainer(
        tmp_path,
        push_to_hub=True,
        hub_strategy=strategy,
        hub_always_push=True,
        save_strategy="epoch",
        projection_dim=8,
    )
    trainer.train()
    pushed = repository(hub)
    folders = {name.split("/")[0] for name in pushed.files if "/" in name}
    if strategy == "end":
        assert pushed.files == {}
    else:
        assert {"model.safetensors", "projection_head.safetensors"} <= root_files(pushed)
    kept = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-2", "checkpoint-4"}}
    assert folders == kept.get(strategy, set())
    trainer.save_model()
    assert pushed.files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    head = "projection_head.safetensors"
    assert pushed.files[head] == (tmp_path / head).read_bytes()
    assert "README.md" in pushed.files


def test_a_run_resumes_from_the_checkpoint_on_the_hub(hub, tmp_path):
    # The memory of past embeddings is never uploaded.
    fields = {
        "projection_dim": 8,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "memory_size": 0,
    }
    whole = make_trainer(tmp_path / "whole", num_train_epochs=4, **fields)
    whole.train()
    saved = {"push_to_hub": True, "hub_strategy": "checkpoint", "hub_always_push": True}
    cut = make_trainer(
        tmp_path / "cut", num_train_epochs=4, save_strategy="epoch", **saved, **fields
    )
    cut.add_callback(StopAt(4))
    cut.train()
    folder = snapshot_download("ann/photos", allow_patterns="last-checkpoint/*")
    checkpoint = str(Path(folder, "last-checkpoint"))
    resumed = make_trainer(tmp_path / "new", num_train_epochs=4, **fields)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert logged(resumed, "loss") == logged(whole, "loss")
    expected = whole.model.state_dict()
    assert all(torch.equal(expected[name], p) for name, p in resumed.model.state_dict().items())


def test_a_download_resumes_where_it_was_cut(hub, tmp_path):
    # The client keeps what it has by 10 MB.
    trainer = make_trainer(tmp_path, functools.partial(vit, intermediate_size=60_000))
    trainer.push_to_hub()
    hub.fail("GET", "model.safetensors", 0, times=1)
    model = AutoModelForImageClassification.from_pretrained("ann/photos")
    expected = trainer.model.state_dict()
    assert all(torch.equal(expected[name], p) for name, p in model.state_dict().items())
    ranges = [headers.get("Range") for method, path, headers in hub.requests if method == "GET"]
    assert "bytes=10485760-" in ranges


def test_a_private_repository_is_read_with_its_token_alone(hub, tmp_path):
    trainer = make_trainer(tmp_path, hub_private_repo=True, hub_model_id="ann/secret")
    trainer.push_to_hub()
    assert repository(hub, "ann/secret").private
    with pytest.raises(OSError, match=r"not a valid model identifier"):
        AutoModelForImageClassification.from_pretrained("ann/secret")
    model = AutoModelForImageClassification.from_pretrained("ann/secret", token=TOKEN)
    assert model.config.id2label == trainer.model.config.id2label


def test_a_push_takes_the_arguments_of_trainer(hub, tmp_path):
    trainer = make_trainer(tmp_path, hub_token=None)
    trainer.model.add_model_tags(["tiny"])
    hub.create("ann/photos")
    HfApi(token=TOKEN).create_branch("ann/photos", branch="v1")
    push = trainer.push_to_hub(
        "Trained on birds",
        blocking=False,
        token=TOKEN,
        revision="v1",
        language="en",
        license="mit",
        tags="birds",
        tasks="image-classification",
        model_name="Bird finder",
        dataset="Garden birds",
        dataset_tags="bob/birds",
        dataset_args={"year": 2026},
    )
    push.result()
    pushed = repository(hub)
    assert (pushed.commits, pushed.files) == (["Trained on birds"], {})
    files = pushed.branches["v1"]
    assert files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert card.text.strip().startswith("# Bird finder")
    data = card.data
    assert (data.language, data.license, data.datasets) == (["en"], "mit", ["bob/birds"])
    assert {"birds", "tiny", "clce"} <= set(data.tags)
    model = AutoModelForImageClassification.from_pretrained("ann/photos", revision="v1")
    assert model.config.id2label == trainer.model.config.id2label


def test_cached_files_are_not_downloaded_again(hub, tmp_path):
    trainer = make_trainer(tmp_path, hub_model_id="ann/kept")
    trainer.train()  # which completes the config
    trainer.push_to_hub()

    def downloaded():
        hub.requests.clear()
        AutoModelForImageClassification.from_pretrained("ann/kept")
        paths = [path for method, path, _ in hub.requests if method == "GET" and "resolve" in path]
        return [path.split("/")[-1] for path in paths]

    assert downloaded() == ["config.json", "model.safetensors"]
    assert downloaded() == []
    trainer.train()
    trainer.push_to_hub()
    assert downloaded() == ["model.safetensors"]  # the ETag of the other is the old one
