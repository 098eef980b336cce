import pytest
import torch
from support.tiny import Images, vit
from support.tiny_models import TINY_MODELS

from clce_hf.evaluation.inference import infer, infer_batches
from clce_hf.models.capture import EmbeddingCapture


def test_embeddings_come_in_the_order_of_the_images():
    images, model = Images(20), vit()
    predictions = infer(model, images, batch_size=3)
    with torch.no_grad():
        outputs = model(images.pixel_values, output_hidden_states=True)
        embeddings = model.vit.layernorm(outputs.hidden_states[-1])[:, 0]
    torch.testing.assert_close(predictions.logits, outputs.logits)
    torch.testing.assert_close(predictions.embeddings, embeddings)
    assert predictions.labels.tolist() == images.targets
    assert not model.classifier._forward_hooks


@pytest.mark.parametrize("tiny", TINY_MODELS, ids=lambda tiny: tiny.name)
def test_embeddings_of_any_model_are_those_that_training_contrasts(tiny):
    torch.manual_seed(0)
    model = tiny.build()
    batch = tiny.batch(4)
    rows = [{name: value[i] for name, value in batch.items()} | {"labels": 0} for i in range(4)]
    predictions = infer(model, rows, batch_size=4)
    with torch.no_grad():
        _, embeddings = EmbeddingCapture(model).run(model, batch)
    assert torch.equal(predictions.embeddings, embeddings)
    assert predictions.embeddings.std() > 0


def test_between_two_parts_all_is_as_it_was():
    model = vit()
    parts = infer_batches(model, Images(20), batch_size=8)
    sizes = []
    for _, embeddings, _ in parts:
        assert torch.is_grad_enabled() and not model.classifier._forward_hooks
        sizes.append(len(embeddings))
    assert sizes == [8, 8, 4]
