"""A temperature in the classification layer of every image classifier that Transformers maps."""

import pytest
import torch
from support.tiny_models import TINY_MODELS

from clce_hf.models.logits import logits_of
from clce_hf.models.temperature import (
    check_divides_logits,
    fold_temperature,
    foldable_parameters,
)

USUAL = ("beit", "convnext", "resnet", "siglip2", "timm-efficientnet", "timm-beit3")


@pytest.mark.parametrize(
    "tiny",
    [pytest.param(t, marks=[] if t.name in USUAL else pytest.mark.slow) for t in TINY_MODELS],
    ids=lambda tiny: tiny.name,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_logits_of_every_model_type_are_divided(tiny, dtype):
    torch.manual_seed(0)
    model = tiny.build().eval().to(dtype)
    batch = {
        name: values.to(dtype) if values.is_floating_point() else values
        for name, values in tiny.batch(4).items()
    }

    @torch.no_grad()
    def logits():
        return logits_of(model(**batch)).float()

    before = logits()
    name, parameters = foldable_parameters(model)
    assert name == tiny.layer
    check_divides_logits(model, name, parameters, logits)
    assert torch.equal(logits(), before)
    fold_temperature(parameters, 3.0)
    precision = 1e-5 if dtype is torch.float32 else 2e-2
    assert (3 * logits() - before).abs().max() <= precision * before.abs().max() + 1e-40
