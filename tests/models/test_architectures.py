"""Every image classifier that Transformers maps is contrasted on what enters its last layer."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.tiny import Images, config, logged, vit
from support.tiny_models import EXCEPTIONS, NUM_LABELS, TINY_MODELS, TWO_HEADS
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    AutoModelForImageClassification,
    DinatConfig,
    DinatForImageClassification,
    ShieldGemma2Config,
    ShieldGemma2ForImageClassification,
)

from clce_hf import CLCETrainer, label_aware_contrastive_loss
from clce_hf.models.classification_layer import find_classification_layer

LABELS = [0, 0, 1, 1, 2, 2]


def dataset_of(tiny):
    batch = tiny.batch(len(LABELS))
    return [
        {**{name: values[i] for name, values in batch.items()}, "labels": label}
        for i, label in enumerate(LABELS)
    ]


def one_step(tiny, folder, model, **fields):
    args = config(
        folder,
        max_steps=1,
        per_device_train_batch_size=len(LABELS),
        train_sampling_strategy="sequential",
        contrastive_weight=1.0,
        optim="sgd",
        learning_rate=0.1,
        **fields,
    )
    trainer = CLCETrainer(model, args, train_dataset=dataset_of(tiny))
    trainer.train()
    return trainer


def test_every_model_type_is_covered():
    types = {config_class.model_type for config_class in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING}
    covered = {tiny.model_type for tiny in TINY_MODELS + TWO_HEADS}
    assert covered | EXCEPTIONS.keys() == types
    assert not covered & EXCEPTIONS.keys()
    assert len(covered) >= 40
    assert sum(tiny.model_type == "timm_wrapper" for tiny in TINY_MODELS) == 3


def test_the_exceptions_are_what_they_are_said_to_be():
    with pytest.raises(ImportError, match="natten"):
        DinatForImageClassification(DinatConfig(embed_dim=8, depths=[1], num_heads=[1]))
    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    text = {**small, "vocab_size": 8, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0}
    shield = ShieldGemma2ForImageClassification(
        ShieldGemma2Config(
            text_config={**text, "bos_token_id": 2, "eos_token_id": 1},
            vision_config={**small, "image_size": 28, "patch_size": 14},
            mm_tokens_per_image=4,
            num_labels=NUM_LABELS,
        )
    )
    with pytest.raises(ValueError, match="No classification layer found in ShieldGemma2"):
        find_classification_layer(shield)


@pytest.mark.parametrize("tiny", TINY_MODELS, ids=lambda tiny: tiny.name)
def test_the_contrast_is_on_the_layers_input_and_trains_the_backbone(tmp_path, tiny):
    torch.manual_seed(0)
    model = tiny.build()
    assert find_classification_layer(model)[0] == tiny.layer
    seen = []
    layer = model.get_submodule(tiny.layer)
    layer.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    returned = []
    model.register_forward_hook(lambda module, args, output: returned.append(output))
    name, first = next(iter(model.named_parameters()))
    before = first.detach().clone()

    trainer = one_step(tiny, tmp_path, model)

    ((embeddings, produced),) = seen
    (outputs,) = returned
    logits = outputs["logits"] if "logits" in outputs else outputs["last_hidden_state"]
    torch.testing.assert_close(produced.flatten(), logits.flatten())
    assert "hidden_states" not in outputs
    args = trainer.args
    expected = label_aware_contrastive_loss(
        embeddings.flatten(1),
        torch.tensor(LABELS),
        temperature=args.temperature,
        beta=args.beta,
        variant=args.variant,
    )
    assert logged(trainer, "contrastive_loss") == [pytest.approx(expected.item(), rel=1e-5)]
    assert logged(trainer, "loss") == logged(trainer, "contrastive_loss")
    assert not torch.equal(first, before), f"{name} did not move"
    assert logged(trainer, "grad_norm")[0] > 0

    metrics = trainer.evaluate(dataset_of(tiny))
    predictions = trainer.predict(dataset_of(tiny))
    assert predictions.predictions.shape == (len(LABELS), NUM_LABELS)
    assert metrics["eval_loss"] == pytest.approx(predictions.metrics["test_loss"], rel=1e-5)


@pytest.mark.parametrize("tiny", TWO_HEADS, ids=lambda tiny: tiny.name)
def test_two_heads_train_once_one_is_named(tmp_path, tiny):
    torch.manual_seed(0)
    model = tiny.build()
    with pytest.raises(
        ValueError, match=rf"not the model's logits.*{tiny.layer}.*classification_layer"
    ):
        one_step(tiny, tmp_path, model)
    torch.manual_seed(0)
    model = tiny.build()
    first = next(model.parameters())
    before = first.detach().clone()
    one_step(tiny, tmp_path, model, classification_layer=tiny.layer)
    assert not torch.equal(first, before)


@pytest.mark.parametrize("tiny", TINY_MODELS, ids=lambda tiny: tiny.name)
def test_a_projection_head_fits_every_model(tmp_path, tiny):
    torch.manual_seed(0)
    trainer = one_step(tiny, tmp_path, tiny.build(), projection_dim=4)
    assert trainer.projection_head.output.out_features == 4
    trainer.save_model()
    _, info = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())


# PEFT 0.21 still asks for the property by the name that Transformers 5.23 deprecates.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize("wrapped", ["saved", "lora"])
def test_peft_lora(tmp_path, wrapped, projection_dim):
    targets = ["q_proj", "v_proj"] + (["classifier"] if wrapped == "lora" else [])
    lora = LoraConfig(
        r=2,
        target_modules=targets,
        modules_to_save=["classifier"] if wrapped == "saved" else None,
        init_lora_weights=False,
    )
    model = get_peft_model(vit(), lora)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    args = config(
        tmp_path,
        contrastive_weight=1.0,
        projection_dim=projection_dim,
        save_strategy="steps",
        save_steps=1,
        weight_decay=0.0,
    )
    trainer = CLCETrainer(model, args, train_dataset=Images(), eval_dataset=Images(8))
    trainer.train()
    after = dict(model.named_parameters())
    moved = {n for n, value in before.items() if not torch.equal(after[n], value)}
    assert moved == {n for n in before if "classifier" not in n}
    assert "eval_contrastive_loss" in trainer.evaluate()
    losses = logged(trainer, "loss")

    resumed = CLCETrainer(get_peft_model(vit(), lora), args, train_dataset=Images())
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert logged(resumed, "loss") == losses
