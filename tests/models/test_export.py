"""A trained model is exported and quantized like one that this package never saw."""

import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from support.tiny import config
from support.tiny_models import TINY_MODELS
from torch import nn

from clce_hf import CLCETrainer
from clce_hf.models.capture import EmbeddingCapture
from clce_hf.models.classification_layer import find_classification_layer

TINY = {tiny.name: tiny for tiny in TINY_MODELS}
NAMES = ["vit", "beit", "convnext", "timm-vit"]
WITH_EMBEDDINGS = ["vit", "convnext"]


class WithEmbeddings(nn.Module):
    def __init__(self, model):
        super().__init__()
        name, _ = find_classification_layer(model)
        self.model, self.capture = model, EmbeddingCapture(model, name)

    def forward(self, pixel_values):
        outputs, embeddings = self.capture.run(self.model, {"pixel_values": pixel_values})
        return outputs.logits, embeddings


def trained(name, folder):
    torch.manual_seed(0)
    pixels = TINY[name].batch(48)["pixel_values"]
    labels = torch.arange(48) % 3
    pixels += labels[:, None, None, None] - 1.0
    rows = [{"pixel_values": pixels[i], "labels": int(labels[i])} for i in range(48)]
    args = config(folder, max_steps=30, projection_dim=8, learning_rate=2e-3)
    trainer = CLCETrainer(TINY[name].build(), args, train_dataset=rows)
    trainer.train()
    return trainer.model.eval(), pixels


def export(model, pixels, file):
    program = torch.onnx.export(
        model,
        kwargs={"pixel_values": pixels[:2]},
        dynamo=True,
        dynamic_shapes={"pixel_values": {0: torch.export.Dim.DYNAMIC}},
        input_names=["pixel_values"],
    )
    program.save(file)


def run(file, pixels):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {"pixel_values": pixels.numpy()})
    return [torch.from_numpy(output) for output in found]


def agreement(logits, others):
    return (logits.argmax(1) == others.argmax(1)).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_onnx_computes_what_torch_does_also_in_eight_bits(name, tmp_path):
    model, pixels = trained(name, tmp_path)
    with torch.no_grad():
        outputs, vectors = EmbeddingCapture(model).run(model, {"pixel_values": pixels})
    expected = [outputs.logits]
    if name in WITH_EMBEDDINGS:
        expected.append(vectors)
        export(WithEmbeddings(model).eval(), pixels, tmp_path / "model.onnx")
    else:
        export(model, pixels, tmp_path / "model.onnx")
    assert not any(module._forward_hooks for module in model.modules())
    for n in (1, 48):
        found = run(tmp_path / "model.onnx", pixels[:n])
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs[:n], rtol=0, atol=1e-4)
    small = tmp_path / "small.onnx"
    quantize_dynamic(tmp_path / "model.onnx", small, weight_type=QuantType.QInt8)
    assert agreement(run(small, pixels)[0], outputs.logits) >= 0.95
    assert small.stat().st_size < (tmp_path / "model.onnx").stat().st_size


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.parametrize(
    "name", [n if n == "vit" else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_torch_quantizes_it_to_eight_bits(name, tmp_path):
    model, pixels = trained(name, tmp_path)
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        expected, quantized = (each(pixel_values=pixels).logits for each in (model, small))
    assert not torch.equal(quantized, expected)
    assert agreement(quantized, expected) >= 0.95
    torch.save(model.state_dict(), tmp_path / "float.pt")
    torch.save(small.state_dict(), tmp_path / "small.pt")
    sizes = [(tmp_path / name).stat().st_size for name in ("small.pt", "float.pt")]
    assert sizes[0] < 0.75 * sizes[1]
