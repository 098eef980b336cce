"""A backbone that is frozen is not trained with a contrastive term, and may do all else."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.beside_stock import both
from support.tiny import Images, config, logged, vit
from torch.nn import functional as F
from transformers import TrainerCallback

from clce_hf import CLCETrainer

# PEFT 0.21 asks for the property by the name that Transformers 5.23 deprecates.
PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def frozen():
    model = vit()
    for parameter in model.vit.parameters():
        parameter.requires_grad = False
    return model


def test_a_frozen_backbone(tmp_path):
    later = vit()
    set_later = CLCETrainer(later, config(tmp_path), train_dataset=Images())
    later.vit.requires_grad_(False)
    needs_input = frozen()  # so that the embeddings carry a gradient that reaches no weight
    needs_input.enable_input_require_grads()
    for trainer in (
        CLCETrainer(frozen(), config(tmp_path), train_dataset=Images()),
        CLCETrainer(needs_input, config(tmp_path), train_dataset=Images()),
        set_later,
    ):
        with pytest.raises(ValueError, match=r"backbone is frozen.*projection_dim.*contrastive_we"):
            trainer.train()
        assert trainer.state.global_step == 0
    for fields in ({"projection_dim": 8}, {"contrastive_weight": 0.0}):
        CLCETrainer(frozen(), config(tmp_path, **fields), train_dataset=Images()).train()


@pytest.mark.parametrize("fields", [{}, {"cached_mini_batch_size": 3}], ids=str)
def test_a_backbone_that_is_frozen_in_training(tmp_path, fields):
    class Freeze(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            model.vit.requires_grad_(False)

    args = config(tmp_path, **fields)
    trainer = CLCETrainer(vit(), args, train_dataset=Images(), callbacks=[Freeze()])
    with pytest.raises(ValueError, match=r"backbone is frozen.*projection_dim.*contrastive_weight"):
        trainer.train()
    assert trainer.state.global_step == 1


def adapter_to_evaluate(folder):
    get_peft_model(vit(), lora()).save_pretrained(folder)
    return PeftModel.from_pretrained(vit(), folder)  # which freezes all of it


def lora():
    return LoraConfig(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])


@PEFT_WARNS
@pytest.mark.parametrize("adapter", [False, True])
def test_it_is_evaluated_and_predicts_as_in_stock(tmp_path, adapter):
    def build():
        return adapter_to_evaluate(tmp_path / "adapter") if adapter else vit().requires_grad_(False)

    def summary(trainer):
        return trainer.evaluate()["eval_loss"], trainer.predict(Images(6)).predictions.tolist()

    both(tmp_path, summary, build=build)


def test_a_loss_of_ones_own_trains_its_classification_layer(tmp_path):
    def subclass(cls):
        class Probe(cls):
            def compute_loss(self, model, inputs, return_outputs=False, **named):
                labels = inputs.pop("labels")
                outputs = model(**inputs)
                loss = F.cross_entropy(outputs.logits, labels)
                return (loss, outputs) if return_outputs else loss

        return Probe

    def summary(trainer):
        trainer.train()
        return logged(trainer, "loss"), trainer.model.classifier.weight.tolist()

    both(tmp_path, summary, subclass, build=frozen)


class Unfreeze(TrainerCallback):
    """Trains the backbone from an epoch on, and contrasts from then on."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_begin(self, args, state, control, model=None, **kwargs):
        is_trained = state.epoch >= self.epoch
        model.vit.requires_grad_(is_trained)
        args.contrastive_weight = 0.9 if is_trained else 0.0


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_callback_may_unfreeze_it(tmp_path, epoch):
    model, args = frozen(), config(tmp_path, max_steps=-1, num_train_epochs=2)
    # Trainer would make one of what is not frozen then.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trainer = CLCETrainer(
        *(model, args),
        train_dataset=Images(),
        callbacks=[Unfreeze(epoch)],
        optimizers=(optimizer, None),
    )
    before = trainer.model.vit.layernorm.weight.clone()
    trainer.train()
    assert len(logged(trainer, "loss")) == 8
    assert len(logged(trainer, "contrastive_loss")) == 8 - 4 * epoch
    assert not torch.equal(trainer.model.vit.layernorm.weight, before)


@PEFT_WARNS
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
@pytest.mark.parametrize("fields", [{}, {"cached_mini_batch_size": 3}], ids=str)
def test_checkpointing_that_cuts_gradients_off_is_named(tmp_path, fields):
    def trainer(use_reentrant):
        checkpointing = {
            "activation_checkpointing": True,
            "activation_checkpointing_kwargs": {"use_reentrant": use_reentrant},
        }
        args = config(tmp_path, **checkpointing, **fields)
        return CLCETrainer(get_peft_model(vit(), lora()), args, train_dataset=Images())

    cut = trainer(use_reentrant=True)
    with pytest.raises(
        ValueError, match=r"no gradient.*use_reentrant=False.*enable_input_require_grads"
    ) as error:
        cut.train()
    assert "frozen" not in str(error.value) and "\n" not in str(error.value)
    assert cut.state.global_step == 0
    cut.model.enable_input_require_grads()
    cut.train()
    whole = trainer(use_reentrant=False)
    whole.train()
    assert logged(whole, "loss") == pytest.approx(logged(cut, "loss"), rel=1e-5)
