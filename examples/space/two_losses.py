"""One model, trained twice on the same images: with cross-entropy, and with CLCE."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn
from transformers import set_seed

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.comparison import METHODS, Cell, Method, train_and_measure, write_results
from clce_hf.data import evaluation_rows, training_rows, with_images
from clce_hf.data.held_out import hold_out
from clce_hf.data.transforms import Transform
from clce_hf.errors import UserError
from clce_hf.evaluation import Run, infer, nearest_others
from clce_hf.models.layer_decay import layer_scales
from clce_hf.models.pretrained import load_model

MODEL = os.environ.get("MODEL_ID", "facebook/dinov2-small")
"""The model that is trained by default; the owner of the Space may name a folder, too."""

MAX_PARAMETERS = 30_000_000
TEST_SHARE = 0.3
STEPS, BATCH, SEED = 60, 16, 0
SIZE = 112
"""Pixels of an image for the model, where it takes images of that size: a quarter of the time."""


@dataclass(frozen=True)
class Trained:
    """A trained model, its results on the test images, and the training images as it sees them."""

    run: Run
    model: nn.Module
    to_pixels: Transform
    known: Dataset
    embeddings: Tensor

    def nearest(self, image: Image.Image, k: int = 5) -> tuple[int, list[int]]:
        """Return the class predicted for an image, and the rows of the k nearest training ones."""
        rows = Dataset.from_dict({"image": [image.convert("RGB")], "labels": [0]})
        seen = infer(self.model, rows.with_transform(self.to_pixels))
        points = torch.cat([seen.embeddings, self.embeddings])
        nearest = nearest_others(points, torch.tensor([0]), k)[0] - 1
        return int(seen.predicted), nearest.tolist()


def check_model(name: str) -> None:
    """Raise `UserError` for a model that strangers may not name, or that is too large to train.

    Code that a model brings is never run, and weights are read as safetensors.
    """
    if name == MODEL:
        return
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(
            f"{name!r} is no model's id: name one of the Hub, such as {MODEL}."
        ) from None
    try:
        weights = HfApi().model_info(name, expand=["safetensors"], token=False).safetensors
    # Which of them it is depends on the HTTP library of the client.
    except Exception as error:
        raise UserError(f"The Hub shows no model {name!r}: see that the id is right.") from error
    if weights is None or weights.total > MAX_PARAMETERS:
        size = "no safetensors" if weights is None else f"{weights.total / 1e6:,.0f} M parameters"
        raise UserError(
            f"{name} has {size}: name a model with safetensors of at most "
            f"{MAX_PARAMETERS / 1e6:.0f} M parameters, such as {MODEL}."
        )


def split(images: Dataset) -> tuple[Dataset, Dataset]:
    """Return the images to train on and those to test on, both of all classes."""
    return hold_out(images, TEST_SHARE, SEED)


def train_both(
    images: Dataset, name: str, rate: float, say: Callable[[float, str], object]
) -> list[Trained]:
    """Train with cross-entropy, then with CLCE.

    Raises:
        UserError: if the model cannot be had, or is not to be trained here.
        ValueError: if it does not fit the images.
    """
    check_model(name)
    trained = []
    for i, method in enumerate((METHODS["ce"], METHODS["clce"])):
        say(i / 2, f"Training with {method.name}")
        trained.append(_train(method, images, name, rate))
    return trained


def report(trained: list[Trained], images: Dataset) -> tuple[list[Image.Image], str]:
    """Return the maps of the test images, and the report of both as a page of its own."""
    _, test = split(images)
    names = test.features["labels"].names
    with tempfile.TemporaryDirectory() as folder:
        runs = [one.run for one in trained]
        write_results(Path(folder), runs, names, lambda row: test[row]["image"])
        maps = [Image.open(file).convert("RGB") for file in sorted(Path(folder).glob("map-*.png"))]
        return maps, (Path(folder) / "report.html").read_text(encoding="utf-8")


def in_words(trained: list[Trained]) -> str:
    """Return the accuracies and what can be concluded from them, in Markdown."""
    right = [one.run.predictions.predicted == one.run.predictions.labels for one in trained]
    n = len(right[0])
    lines = ["| | right | accuracy | 95 % interval |", "|---|---|---|---|"]
    for name, hits in zip(("cross-entropy", "CLCE"), right, strict=True):
        k = int(hits.sum())
        low, high = binomtest(k, n).proportion_ci(method="wilson")
        lines.append(f"| {name} | {k} of {n} | {k / n:.1%} | {low:.0%} to {high:.0%} |")
    better, worse = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    chance = binomtest(better, better + worse).pvalue if better + worse else 1.0
    verdict = (
        "so these images do not tell which loss is better"
        if chance > 0.05
        else "so the difference is hardly chance, for this split of the images"
    )
    return "\n".join(lines) + (
        f"\n\n**The figures stand on {n} test images**, which no model was trained on: one image "
        f"is {100 / n:.1f} points. CLCE is right about {better} that cross-entropy gets wrong, and "
        f"wrong about {worse} that it gets right; a difference as large or larger comes by chance "
        f"with a probability of {chance:.0%} (sign test), {verdict}."
    )


def _train(method: Method, images: Dataset, name: str, rate: float) -> Trained:
    """Train the last block and what follows it; all that the two runs differ in is the method."""
    train, test = split(images)
    set_seed(SEED)
    names = train.features["labels"].names
    model, processor, _ = load_model(
        name, names, ignore_mismatched_sizes=True, trust_remote_code=False
    )
    for parameter, scale in layer_scales(model, 0.5).items():
        parameter.requires_grad = scale >= 0.5  # 1 after the last block, 0.5 in it
    _use_small_images(model, processor)
    with tempfile.TemporaryDirectory() as folder:
        args = CLCEConfig(
            folder,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            weight_decay=0.05,
            head_init="class_means",
            seed=SEED,
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,  # pixels are made of the column of images
            dataloader_pin_memory=False,
            **method.settings,
        )
        trainer = CLCETrainer(
            model, args, train_dataset=with_images(train, training_rows(processor))
        )
        to_pixels = evaluation_rows(processor)
        tested: Any = with_images(test, to_pixels)
        run = train_and_measure(Cell(method, SEED), trainer, tested)
    known: Any = with_images(train, to_pixels)
    seen = infer(model, known)
    return Trained(run, model, to_pixels, train, seen.embeddings)


def _use_small_images(model: nn.Module, processor: Any) -> None:
    """Have images made of `SIZE` pixels, unless the model only takes those of its own size."""
    if processor.size is None:  # timm's, which has no size to set
        return
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, SIZE, SIZE))
    except (ValueError, RuntimeError):
        return
    square = {"height": SIZE, "width": SIZE}
    if getattr(processor, "crop_size", None):
        processor.size, processor.crop_size = {"shortest_edge": SIZE * 8 // 7}, square
    else:
        processor.size = square
