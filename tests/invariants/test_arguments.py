"""Arguments and optimizers, stock Trainer beside CLCETrainer in every test."""

import inspect

import pytest
import torch
from support.beside_stock import TRAINERS, both, entries, make, of_class
from support.tiny import Images, logged, vit
from transformers import (
    ViTForImageClassification,
    get_constant_schedule,
)


class OutOfMemory(ViTForImageClassification):
    def forward(self, pixel_values=None, labels=None):
        if self.training and len(pixel_values) > 4:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(pixel_values=pixel_values, labels=labels)


def test_the_batch_size_is_found(tmp_path):
    def summary(trainer):
        trainer.train()
        return trainer._train_batch_size, trainer.state.global_step

    size, _ = both(tmp_path, summary, build=of_class(OutOfMemory), auto_find_batch_size=True)
    assert size == 4


def test_optimizers_passed_in_are_used(tmp_path):
    for cls in TRAINERS:
        model = vit()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
        schedule = get_constant_schedule(optimizer)
        trainer = make(cls, tmp_path, build=lambda: model, optimizers=(optimizer, schedule))  # noqa: B023
        trainer.train()
        assert trainer.optimizer.optimizer is optimizer
        assert set(logged(trainer, "learning_rate")) == {0.125}


def test_a_class_of_optimizer_is_made_with_its_arguments(tmp_path):
    def summary(trainer):
        trainer.train()
        return type(trainer.optimizer.optimizer).__name__, trainer.optimizer.defaults["momentum"]

    made = both(
        tmp_path, summary, optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 1, "momentum": 0.5})
    )
    assert made == ("SGD", 0.5)


@pytest.mark.parametrize(
    ("optim", "schedule"),
    [
        ("adamw_torch", "linear"),
        ("adafactor", "cosine"),
        ("sgd", "constant_with_warmup"),
        ("adagrad", "polynomial"),
        ("rmsprop", "inverse_sqrt"),
    ],
)
def test_optimizers_and_schedules_have_their_rates(tmp_path, optim, schedule):
    def summary(trainer):
        trainer.train()
        rates = logged(trainer, "learning_rate")
        return type(trainer.optimizer.optimizer).__name__, rates, trainer.get_learning_rates()

    both(
        tmp_path, summary, optim=optim, lr_scheduler_type=schedule, warmup_steps=2, weight_decay=0.1
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"optim": "galore_adamw", "optim_target_modules": ["query"]},
        {"optim": "adamw_torch", "optim_target_modules": ["query"]},
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "sequential"},
        {"eval_strategy": "epoch", "held_out": False},
        {"neftune_noise_alpha": 5.0},
        {"torch_empty_cache_steps": 2},
        {"dataloader_drop_last": True, "per_device_train_batch_size": 7},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {"include_num_input_tokens_seen": "all"},
        {"logging_nan_inf_filter": False},
        {"max_grad_norm": 0.0},
        {"max_grad_norm": 0.01},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"full_determinism": True},
        {"seed": 7, "data_seed": 8},
        {"skip_memory_metrics": False},
        {"eval_accumulation_steps": 1, "eval_strategy": "epoch"},
        {"prediction_loss_only": True, "eval_strategy": "epoch"},
        {"restore_callback_states_from_checkpoint": True},
        {"average_tokens_across_devices": False},
        {"accelerator_config": {"split_batches": True}},
        {"accelerator_config": {"dispatch_batches": True, "even_batches": False}},
        {"accelerator_config": {"use_seedable_sampler": False}},
        {"gradient_accumulation_steps": 2, "ddp_find_unused_parameters": True},
        {"logging_steps": 0.5, "eval_strategy": "steps", "eval_steps": 0.25},
        {"use_liger_kernel": True},
        {"enable_jit_checkpoint": True},
        {"train": Images(5), "dataloader_drop_last": True},
        {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    ],
    ids=lambda fields: ",".join(fields),
)
@pytest.mark.filterwarnings("ignore")
def test_an_argument_does_or_refuses_the_same(tmp_path, fields):
    def summary(cls):
        try:
            trainer = make(cls, tmp_path / cls.__name__, **fields)
            trainer.train()
        except Exception as error:
            return type(error).__name__, str(error)
        finally:
            torch.use_deterministic_algorithms(False)
        return trainer.state.global_step, trainer.state.epoch, entries(trainer)

    stock, ours = map(summary, TRAINERS)
    assert ours == stock


def test_a_model_is_made_anew_for_each_run(tmp_path):
    def summary(trainer):
        first = trainer.model
        trainer.train()
        return trainer.model is first, trainer.get_num_trainable_parameters()

    both(tmp_path, summary, model_init=lambda: vit())


def test_the_constructor_is_that_of_trainer():
    stock, ours = (inspect.signature(cls).parameters for cls in TRAINERS)
    assert list(ours) == list(stock)
    for name, parameter in stock.items():
        assert (ours[name].kind, ours[name].default) == (parameter.kind, parameter.default)
