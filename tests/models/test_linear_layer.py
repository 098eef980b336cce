"""Which weights of a classification layer can be set, and where they would not be saved."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import vit
from torch import nn

from clce_hf.models.linear_layer import linear_parameters

# PEFT 0.21 still asks for the property by the name that Transformers 5.23 deprecates.
PEFT_WARNS = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)


def parameters_of(layer):
    model = nn.Sequential(nn.Identity(), layer)
    return linear_parameters(model, "1", doing="This sets", otherwise="leave it out")


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(6, 4), nn.Linear(6, 4, bias=False), nn.Conv2d(6, 4, 1)],
    ids=["linear", "without bias", "convolution"],
)
def test_layers_whose_weights_can_be_set(layer):
    weight, bias = parameters_of(layer)
    assert weight is layer.weight and bias is layer.bias


def quantized():
    """As 8-bit layers have their weights: integers in a Linear."""
    layer = nn.Linear(6, 4)
    layer.weight = nn.Parameter(torch.zeros(4, 6, dtype=torch.int8), requires_grad=False)
    return layer


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 4, 1, groups=2),
        nn.Bilinear(6, 6, 4),
        nn.Linear(6, 4, device="meta"),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)),
        quantized(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_layers_are_refused(layer):
    with pytest.raises(
        ValueError, match=r"This sets.*layer '1' is a.*: leave it out, or with PEFT"
    ):
        parameters_of(layer)


@PEFT_WARNS
@pytest.mark.parametrize("trains_again", [True, False])
def test_the_copy_that_peft_saves_is_the_one_that_is_set(trains_again):
    adapted = get_peft_model(
        vit(), LoraConfig(target_modules=["q_proj"], modules_to_save=["classifier"])
    )
    adapted.requires_grad_(trains_again)  # as an adapter is that was loaded to be used
    name = "base_model.model.classifier"
    weight, _ = linear_parameters(adapted, name, doing="This sets", otherwise="leave it out")
    copy = f"{name}.modules_to_save.default.weight"
    assert weight is dict(adapted.named_parameters())[copy]


@PEFT_WARNS
def test_a_merged_adapter_is_an_ordinary_model():
    merged = get_peft_model(vit(), LoraConfig(target_modules=["q_proj"])).merge_and_unload()
    weight, bias = linear_parameters(
        merged, "classifier", doing="This sets", otherwise="leave it out"
    )
    assert weight is merged.classifier.weight and bias is merged.classifier.bias
