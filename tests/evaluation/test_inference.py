import torch
from support.tiny import Images, vit

from clce_hf.evaluation.inference import infer


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
