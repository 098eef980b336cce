import pytest
import torch
from support.tiny import Images, vit

from clce_hf.evaluation.finite import check_finite
from clce_hf.evaluation.inference import infer


def test_images_that_are_not_finite_are_told_from_a_model_that_is_not():
    images, model = Images(20), vit()
    check_finite(infer(model, images), model)
    images.pixel_values[[3, 7], 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"2 of 20 images alone, rows 3, 7: .*leave them out"):
        check_finite(infer(model, images), model)
    images.pixel_values.fill_(torch.inf)  # whose fault it is cannot be known
    with pytest.raises(ValueError, match=r"20 of 20 images: .*diverged.*, or all images"):
        check_finite(infer(model, images), model)
