"""Batches that are forwarded a few images at a time train as whole ones do."""

import pytest
import torch
from support.scale_cases import Case, differences, train
from support.tiny import GradientRecorder, Images, beit, config, vit
from transformers import (
    AutoModelForImageClassification,
    EfficientNetConfig,
    ResNetConfig,
    TrainerCallback,
)

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.training import forward
from clce_hf.training.checks import check_forwards_in_mini_batches
from clce_hf.training.gradcache import forward_in_mini_batches, split_inputs

pytestmark = pytest.mark.early

SIZE = {"cached_mini_batch_size": 3}


@pytest.mark.parametrize("model", ["vit", "beit"])
@pytest.mark.parametrize("size", [1, 8])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"projection_dim": 5},
        {"gradient_accumulation_steps": 2},
        {"max_grad_norm": 0.05},
        {"activation_checkpointing": True},
        {"variant": "out", "temperature": 0.1, "contrastive_weight": 1.0},
        {"contrastive_weight": 0.0},
        {"samples_per_class": 2, "label_smoothing_factor": 0.1},
    ],
    ids=str,
)
def test_gradients_weights_and_logs_are_those_of_whole_batches(model, size, arguments, tmp_path):
    case = Case(model, missing=3, arguments=arguments)
    plain = train(case, tmp_path, 1)
    found = differences(train(case.with_arguments(cached_mini_batch_size=size), tmp_path, 1), plain)
    assert found["gradient"] < 1e-5
    assert found["weight"] < 1e-4
    assert found["log"] < 1e-5


@pytest.mark.parametrize("model", ["vit", pytest.param("beit", marks=pytest.mark.slow)])
def test_compiled_models_too(model, tmp_path):
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    case = Case(model, missing=3, arguments={**compiled, **SIZE})
    found = differences(train(case, tmp_path, 1), train(Case(model, missing=3), tmp_path, 1))
    assert found["gradient"] < 1e-5
    with pytest.raises(ValueError, match="cached_mini_batch_size=1 does not fit torch_compile"):
        train(case.with_arguments(cached_mini_batch_size=1), tmp_path, 1)


def test_under_bf16_autocast_only_bf16_rounding_differs(tmp_path):
    case = Case(arguments={"bf16": True})
    exact, plain = train(Case(), tmp_path, 1), train(case, tmp_path, 1)
    cached = train(case.with_arguments(**SIZE), tmp_path, 1)
    rounding = differences(plain, exact)["gradient"]
    assert rounding > 1e-4
    assert differences(cached, exact)["gradient"] < 2 * rounding
    assert differences(cached, plain)["gradient"] < rounding


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model", [vit, beit])
def test_dropout_and_drop_path_are_replayed(model, checkpointing, tmp_path, monkeypatch):
    def with_one_graph(forward, mini_batches, no_sync):
        return tuple(map(torch.cat, zip(*map(forward, mini_batches), strict=True)))

    probabilities = {"hidden_dropout_prob": 0.4, "attention_probs_dropout_prob": 0.3}
    if model is beit:
        probabilities["drop_path_rate"] = 0.5

    def weights():
        args = config(tmp_path, activation_checkpointing=checkpointing, adam_epsilon=1e-6, **SIZE)
        recorder = GradientRecorder()
        trainer = CLCETrainer(
            model(**probabilities), args, train_dataset=Images(), callbacks=[recorder]
        )
        trainer.train()
        # What is drawn after a step must not depend on its second forward pass either.
        return {**recorder.steps[0], **trainer.model.state_dict(), "next": torch.rand(4)}

    cached = weights()
    monkeypatch.setattr(forward, "forward_in_mini_batches", with_one_graph)
    torch.testing.assert_close(cached, weights(), rtol=1e-5, atol=1e-6)


class Scaled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 3)

    def forward(self, x, flag=None):
        return self.inner(torch.dropout(x, 0.5, train=True))


def test_autocast_of_the_caller_holds_in_both_passes():
    model, inputs = Scaled(), {"x": torch.randn(6, 4), "flag": True}
    dtypes = []

    def run(mini_batch):
        outputs = model(**mini_batch)
        dtypes.append((outputs.dtype, torch.is_grad_enabled()))
        return (outputs,)

    with torch.autocast("cpu", torch.bfloat16):
        (outputs,) = forward_in_mini_batches(run, split_inputs(inputs, 6, 4))
    outputs.float().square().sum().backward()  # outside of it, as Trainer does
    assert dtypes == [(torch.bfloat16, False)] * 2 + [(torch.bfloat16, True)] * 2
    assert model.inner.weight.grad.abs().sum() > 0


def test_the_backward_pass_leaves_the_generator_alone():
    model, inputs = Scaled(), {"x": torch.randn(6, 4)}
    (outputs,) = forward_in_mini_batches(
        lambda mini_batch: (model(**mini_batch),), split_inputs(inputs, 6, 4)
    )
    torch.rand(3)  # drawn after the forward pass, and not to be drawn again
    state = torch.get_rng_state()
    outputs.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_does_not_repeat_itself_is_refused(tmp_path):
    class Drifting(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            generator = torch.Generator().manual_seed(0)  # not one that is replayed
            model.vit.layernorm.register_forward_hook(
                lambda module, args, output: output + torch.randn(1, generator=generator)
            )

    args = config(tmp_path, **SIZE)
    trainer = CLCETrainer(vit(), args, train_dataset=Images(), callbacks=[Drifting()])
    with pytest.raises(RuntimeError, match="second forward pass"):
        trainer.train()


@pytest.mark.parametrize(
    "model_config",
    [
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
        EfficientNetConfig(width_coefficient=0.1, depth_coefficient=0.1),
    ],
    ids=lambda model_config: model_config.model_type,
)
def test_batch_normalization_is_refused(model_config, tmp_path):
    model = AutoModelForImageClassification.from_config(model_config)
    with pytest.raises(ValueError, match=r"(?s)batch normalization.*cached_mini_batch_size"):
        CLCETrainer(model, config(tmp_path, **SIZE), train_dataset=Images())
    # A whole batch is normalized as it should be.
    whole = config(tmp_path, cached_mini_batch_size=8)
    CLCETrainer(model, whole, train_dataset=Images())


@pytest.mark.parametrize(
    ("engine", "fix"),
    [("is_deepspeed_enabled", "DistributedDataParallel or FSDP"), ("is_fsdp_enabled", "even_b")],
)
def test_engines_that_would_miscount_mini_batches_are_refused(engine, fix, tmp_path):
    args = config(tmp_path, accelerator_config={"even_batches": False})
    trainer = CLCETrainer(vit(), args)
    check_forwards_in_mini_batches(vit(), trainer)
    setattr(trainer, engine, True)
    with pytest.raises(ValueError, match=f"(?s)cached_mini_batch_size.*{fix}"):
        check_forwards_in_mini_batches(vit(), trainer)


@pytest.mark.parametrize("size", [0, -1])
def test_a_mini_batch_holds_an_image(size, tmp_path):
    with pytest.raises(ValueError, match="cached_mini_batch_size must be at least 1"):
        CLCEConfig(str(tmp_path), cached_mini_batch_size=size)


def test_what_is_no_batch_goes_to_every_mini_batch():
    inputs = {"pixel_values": torch.zeros(5, 2), "scale": torch.tensor(2.0), "flag": True}
    inputs["mean"] = torch.zeros(4)  # of another length than the batch
    first, last = split_inputs(inputs, 5, 3)
    assert (first["pixel_values"].shape, last["pixel_values"].shape) == ((3, 2), (2, 2))
    assert first["flag"] is last["flag"] is True
    assert first["scale"] is last["scale"]
    assert first["mean"] is last["mean"] is inputs["mean"]


def test_a_loss_function_of_the_user_sees_the_logits(tmp_path):
    def mean_square(outputs, labels, num_items_in_batch=None):
        return outputs.logits.square().sum() / num_items_in_batch

    def weights(**fields):
        args = config(tmp_path, adam_epsilon=1e-6, **fields)
        trainer = CLCETrainer(vit(), args, train_dataset=Images(), compute_loss_func=mean_square)
        trainer.train()
        return trainer.model.state_dict()

    torch.testing.assert_close(weights(**SIZE), weights(), rtol=1e-4, atol=1e-5)
