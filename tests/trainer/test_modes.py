"""Precision, compilation, projection heads, searches and best models."""

import copy

import numpy as np
import optuna
import pytest
import torch
from support.tiny import Images, config, logged, vit
from support.training import assert_same_weights, train
from transformers import (
    AutoModelForImageClassification,
    EarlyStoppingCallback,
    TrainerCallback,
    ViTForImageClassification,
)

from clce_hf import CLCETrainer
from clce_hf.models.projection import ProjectionHead


@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize(
    "mode",
    [
        {"bf16": True},
        {"activation_checkpointing": True},
        {"torch_compile": True, "torch_compile_backend": "aot_eager"},
        {"max_grad_norm": 0.0},
        {"optim": "sgd"},
        {"bf16": True, "activation_checkpointing": True, "gradient_accumulation_steps": 2},
    ],
    ids=lambda mode: "-".join(mode),
)
def test_modes_train_both_terms(tmp_path, mode, projection_dim):
    same = {
        "projection_dim": projection_dim,
        "gradient_accumulation_steps": mode.get("gradient_accumulation_steps", 1),
    }
    plain = train(CLCETrainer, vit(), config(tmp_path, **same))
    trainer = train(CLCETrainer, vit(), config(tmp_path, **{**same, **mode}))
    for name in ("ce_loss", "contrastive_loss"):
        assert logged(trainer, name)[0] == pytest.approx(logged(plain, name)[0], rel=0.01)
        assert all(np.isfinite(logged(trainer, name)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_half_precision_weights_are_finite(tmp_path, dtype, temperature):
    # The optimizer updates in half precision here, which is the user's choice to make.
    model = vit().to(dtype)
    images = Images()
    images.pixel_values = images.pixel_values.to(dtype)
    args = config(tmp_path, temperature=temperature, optim="sgd", projection_dim=8)
    trainer = CLCETrainer(model, args, train_dataset=images)
    trainer.train()
    assert all(np.isfinite(logged(trainer, "loss")))
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_projection_head_trains_and_stays_out_of_the_global_generator(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path, projection_dim=8), train_dataset=Images())
    head = trainer.projection_head
    before = copy.deepcopy(head.state_dict())
    trainer.train()
    assert head.output.out_features == 8
    assert not torch.equal(head.output.weight, before["output.weight"])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    other = CLCETrainer(vit(), config(tmp_path, projection_dim=8, seed=5))
    assert other.projection_head is not None
    torch.manual_seed(5)
    assert torch.rand(1) == expected


def test_the_seed_alone_decides_the_projection_head(tmp_path):
    heads = []
    for seed in (0, 0, 1):
        model = vit(seed=len(heads))
        trainer = CLCETrainer(model, config(tmp_path, projection_dim=8, seed=seed))
        torch.rand(3)
        heads.append(trainer.projection_head.output.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    # Whatever the global generator holds, which a model_init leaves where it likes.
    torch.manual_seed(7)
    assert torch.equal(ProjectionHead(32, 8, seed=0).output.weight, heads[0])


def test_model_init_gives_a_fresh_model_each_time(tmp_path):
    built = []

    def model_init():
        built.append(vit())
        return built[-1]

    args = config(tmp_path, projection_dim=8)
    trainer = CLCETrainer(args=args, model_init=model_init, train_dataset=Images())
    trainer.train()
    first, head = logged(trainer, "loss"), trainer.projection_head
    trainer.train()
    assert logged(trainer, "loss") == first
    assert trainer.model is built[-1]
    assert len(built) == 3
    assert trainer.projection_head is not head


def test_a_second_trainer_goes_on_with_the_model_and_its_head(tmp_path):
    model = vit()
    first = train(CLCETrainer, model, config(tmp_path, projection_dim=8))
    second = train(CLCETrainer, model, config(tmp_path, projection_dim=8))
    assert second.projection_head is first.projection_head
    assert logged(second, "loss")[0] < logged(first, "loss")[0]
    first.train()
    assert "eval_contrastive_loss" in first.evaluate(Images(16))
    outputs = model.train()(Images(2).pixel_values)
    assert outputs.keys() == {"logits"}
    third = train(CLCETrainer, model, config(tmp_path, projection_dim=4))
    assert third.projection_head.output.out_features == 4


class TooLarge(ViTForImageClassification):
    """Runs out of memory above four images, in the words of a GPU."""

    def forward(self, pixel_values=None, labels=None):
        if self.training and len(pixel_values) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(pixel_values=pixel_values, labels=labels)


def test_the_batch_size_is_found(tmp_path):
    model = vit()
    model.__class__ = TooLarge
    args = config(tmp_path, auto_find_batch_size=True, projection_dim=8)
    trainer = CLCETrainer(model, args, train_dataset=Images())
    trainer.train()
    assert trainer._train_batch_size == 4
    assert len(logged(trainer, "contrastive_loss")) == 3


class TooLargeLater(TooLarge):
    """Takes a first step before it runs out of memory."""

    steps = 0

    def forward(self, pixel_values=None, labels=None):
        self.steps += 1
        if self.training and self.steps == 1:
            return ViTForImageClassification.forward(self, pixel_values)
        return super().forward(pixel_values, labels)


def test_nothing_of_a_failed_attempt_is_logged(tmp_path):
    model = vit()
    model.__class__ = TooLargeLater
    args = config(tmp_path, auto_find_batch_size=True, logging_steps=2, max_steps=2)
    trainer = CLCETrainer(model, args, train_dataset=Images())
    trainer.train()
    assert trainer._train_batch_size == 4
    (loss,), (cross_entropy,), (contrastive,) = (
        logged(trainer, name) for name in ("loss", "ce_loss", "contrastive_loss")
    )
    assert loss == pytest.approx(0.1 * cross_entropy + 0.9 * contrastive, rel=1e-5)
    # Two batches of four: the images of the failed attempt are not in the memory.
    assert logged(trainer, "positives_per_anchor")[0] < 3


def test_hyperparameters_are_searched(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainer = CLCETrainer(
        args=config(tmp_path, eval_strategy="steps", eval_steps=3, max_steps=3),
        model_init=lambda: vit(),
        train_dataset=Images(),
        eval_dataset=Images(16, seed=1),
    )
    seen = []

    class Watch(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            seen.append((args.contrastive_weight, bool(logged(trainer, "contrastive_loss"))))

    trainer.add_callback(Watch())
    weights = iter([0.0, 0.7, 0.0, 0.2])
    trainer.hyperparameter_search(
        hp_space=lambda trial: {
            "contrastive_weight": trial.suggest_float("w", *[next(weights)] * 2)
        },
        compute_objective=lambda metrics: metrics["eval_loss"],
        n_trials=4,
        backend="optuna",
    )
    assert seen == [(0.0, False), (0.7, True), (0.0, False), (0.2, True)]


def test_callbacks_and_the_best_model(tmp_path):
    args = config(
        tmp_path,
        max_steps=-1,
        num_train_epochs=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        projection_dim=8,
        learning_rate=0.5,
    )
    trainer = CLCETrainer(
        vit(),
        args,
        train_dataset=Images(),
        eval_dataset=Images(16, seed=1),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
    )
    trainer.train()
    losses = logged(trainer, "eval_loss")
    assert trainer.state.best_metric == min(losses)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)
    best = AutoModelForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert_same_weights(best, trainer.model)
