"""Pixels as the image processor of each kind of model makes them."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BeitImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    EfficientNetImageProcessor,
    MobileViTImageProcessor,
    SiglipImageProcessor,
    ViTImageProcessor,
)
from transformers.models.timm_wrapper.image_processing_timm_wrapper import (
    TimmWrapperImageProcessor,
)

from clce_hf.data.mixing import with_one_hot_labels
from clce_hf.data.transforms import evaluation_rows, training_rows, with_images

EVEN = Image.new("RGB", (300, 260), (30, 128, 220))
STATISTICS = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.1]}
PROCESSORS = {
    "vit": (ViTImageProcessor(size={"height": 16, "width": 20}, **STATISTICS), (16, 20)),
    "vit-unnormalized": (ViTImageProcessor(do_normalize=False), (224, 224)),
    "bit": (BitImageProcessor(**STATISTICS), (224, 224)),
    "convnext-384": (ConvNextImageProcessor(size={"shortest_edge": 384}), (384, 384)),
    "convnext-224": (ConvNextImageProcessor(size={"shortest_edge": 224}), (224, 224)),
    "beit": (BeitImageProcessor(), (224, 224)),
    "clip": (CLIPImageProcessor(), (224, 224)),
    "siglip": (SiglipImageProcessor(), (224, 224)),
    "efficientnet": (EfficientNetImageProcessor(size={"height": 32, "width": 32}), (32, 32)),
    "mobilevit": (
        MobileViTImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}),
        (32, 32),
    ),
    "timm": (
        TimmWrapperImageProcessor(
            pretrained_cfg={
                "input_size": [3, 16, 16],
                "mean": [0.4, 0.5, 0.6],
                "std": [0.2, 0.3, 0.1],
                "interpolation": "bicubic",
                "crop_pct": 0.9,
            }
        ),
        (16, 16),
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_training_pixels_are_those_of_the_processor(name):
    processor, size = PROCESSORS[name]
    rows = {"image": [EVEN], "labels": [0]}
    [trained] = training_rows(processor)(rows)["pixel_values"]
    [evaluated] = evaluation_rows(processor)(rows)["pixel_values"]
    assert trained.shape == evaluated.shape == (3, *size)
    assert trained.dtype == evaluated.dtype == torch.float32
    # An even image stays one under any crop or flip.
    torch.testing.assert_close(trained, evaluated, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", PROCESSORS)
def test_transforms_pickle(name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    processor, _ = PROCESSORS[name]
    for transform in (
        evaluation_rows(processor),
        with_one_hot_labels(training_rows(processor, rand_augment=True), 3),
    ):
        made = []
        for of_worker in (transform, pickle.loads(pickle.dumps(transform))):
            torch.manual_seed(0)
            made.append(of_worker({"image": [image] * 2, "labels": [0, 2]}))
        torch.testing.assert_close(*made)


@pytest.mark.parametrize("name", ["vit", "bit", "timm"])
def test_rows_of_gray_images(name):
    processor, size = PROCESSORS[name]
    gray = Image.new("L", (40, 30), 128)
    rows = {"image": [gray, gray], "labels": [0, 1]}
    evaluated = evaluation_rows(processor)(rows)
    torch.testing.assert_close(
        evaluated["pixel_values"][0],
        processor(gray.convert("RGB"), return_tensors="pt")["pixel_values"][0],
    )
    trained = training_rows(processor)(rows)
    for made in (evaluated, trained):
        assert made["labels"] == [0, 1]
        assert made["pixel_values"][0].shape == (3, *size)
        assert made["pixel_values"][0].dtype == torch.float32
    torch.testing.assert_close(
        trained["pixel_values"][0], evaluated["pixel_values"][0], atol=1e-3, rtol=1e-3
    )


def test_training_crops_and_flips_at_random():
    torch.manual_seed(0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    transform = training_rows(PROCESSORS["vit"][0])
    first, second = transform({"image": [image, image], "labels": [0, 0]})["pixel_values"]
    assert not torch.equal(first, second)


def test_rand_augment_changes_more_than_the_crop():
    """An even image stays even under crops and flips, but not under shears and the like."""
    torch.manual_seed(0)
    processor, size = PROCESSORS["vit"]
    rows = {"image": [EVEN] * 16, "labels": [0] * 16}
    plain = training_rows(processor)(rows)["pixel_values"]
    augmented = training_rows(processor, rand_augment=True)(rows)["pixel_values"]
    assert all(torch.equal(pixels, plain[0]) for pixels in plain)
    assert not all(torch.equal(pixels, plain[0]) for pixels in augmented)
    assert {pixels.shape for pixels in augmented} == {(3, *size)}


def test_a_stored_data_set_of_which_columns_were_added_and_taken_away(tmp_path):
    images = [Image.new("RGB", (20, 20), (i, i, i)) for i in range(4)]
    datasets.Dataset.from_dict({"image": images}).save_to_disk(tmp_path)
    changed = datasets.load_from_disk(tmp_path).add_column("x", [0] * 4).remove_columns("x")
    processor = ViTImageProcessor(size={"height": 2, "width": 2}, do_normalize=False)
    for rows, expected in ((changed, [0, 1, 2, 3]), (changed.select([3, 1]), [3, 1])):
        pixels = with_images(rows, evaluation_rows(processor))[:]["pixel_values"]
        assert [round(255 * image.mean().item()) for image in pixels] == expected


def test_a_processor_that_keeps_proportions_is_refused():
    processor = BitImageProcessor(size={"shortest_edge": 24}, do_center_crop=False)
    with pytest.raises(ValueError, match=r"keeps the proportions.*crop_size"):
        training_rows(processor)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_images_of_any_mode(mode):
    image = Image.new("L", (40, 30), 200)
    image = Image.new("I;16", (40, 30), 200 * 257) if mode == "I;16" else image.convert(mode)
    for make in (training_rows, evaluation_rows):
        [pixels] = make(PROCESSORS["vit"][0])({"image": [image], "labels": [0]})["pixel_values"]
        assert pixels.shape == (3, 16, 20)
