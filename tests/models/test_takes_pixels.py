"""Pairs of a model and an image processor that fit, and those that do not."""

import pytest
from support.tiny import vit
from transformers import ViTImageProcessor

from clce_hf.models.takes_pixels import check_takes_pixels


@pytest.mark.parametrize(
    "settings",
    [
        {"size": {"height": 16, "width": 16}},
        {"do_resize": False},  # images are of the model's size
        {"size": {"shortest_edge": 16}},  # and square
    ],
)
def test_a_pair_that_fits(settings):
    model = vit().train()
    check_takes_pixels(model, ViTImageProcessor(**settings))
    assert model.training


def test_a_pair_that_does_not():
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    with pytest.raises(ValueError, match=r"not take the pixels of ViTImageProcessor, 3 x 32 x 32 "):
        check_takes_pixels(vit(), processor)
