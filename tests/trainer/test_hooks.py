"""Outside `train`, `evaluate` and `predict` the model is as it was handed over."""

import copy
import gc
import subprocess
import sys
import weakref

import pytest
import torch
from support.tiny import Images, beit, config, logged, vit
from torch import nn
from torch._dynamo.utils import counters
from torch.optim.swa_utils import AveragedModel
from transformers import Trainer, TrainerCallback

from clce_hf import CLCETrainer

BATCH = Images(4).pixel_values


def make(folder, model=None, cls=CLCETrainer, callbacks=None, **fields):
    args = config(folder, max_steps=2, eval_strategy="steps", eval_steps=1, **fields)
    images = {"train_dataset": Images(16), "eval_dataset": Images(8, seed=1)}
    return cls(vit() if model is None else model, args, callbacks=callbacks, **images)


def ran(trainer):
    trainer.train()
    trainer.evaluate()
    trainer.predict(Images(8))
    return trainer.model.eval()


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return [hook for m in model.modules() for kind in kinds for hook in getattr(m, kind).values()]


@pytest.mark.parametrize("fields", [{}, {"projection_dim": 8}, {"head_init": "class_means"}])
@pytest.mark.parametrize("build", [vit, beit])
def test_the_model_is_as_it_was_before_and_after_it_is_run(tmp_path, build, fields):
    model = build()
    names, attributes = model.state_dict().keys(), model.__dict__.keys()
    trainer = make(tmp_path, model, **fields)
    for run in (lambda: None, trainer.evaluate, trainer.train, lambda: trainer.predict(Images(8))):
        run()
        assert not hooks(model)
        assert model.state_dict().keys() == names
        assert model.__dict__.keys() == attributes
        assert not any(type(module).__module__.startswith("clce") for module in model.modules())


def test_fifty_trainers_leave_nothing_on_a_model(tmp_path):
    model = vit()
    for _ in range(50):
        make(tmp_path, model, projection_dim=8)
    assert not hooks(model)
    assert "clce_projection" not in " ".join(dict(model.named_modules()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch
def test_what_others_do_with_a_model_works_afterwards(tmp_path):
    model = ran(make(tmp_path, projection_dim=8))
    expected = model(BATCH).logits
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(BATCH).logits, expected)
    exported = torch.export.export(model, (BATCH,), strict=True).module()
    torch.testing.assert_close(exported(BATCH).logits, expected)
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert quantized(BATCH).logits.shape == expected.shape
    torch.testing.assert_close(copy.deepcopy(model)(BATCH).logits, expected)


class Average(TrainerCallback):
    """Keeps an average of the weights, as many scripts do."""

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.average = AveragedModel(model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # of torch
def test_a_copy_that_was_made_in_training_works_afterwards(tmp_path):
    callback = Average()
    make(tmp_path, callbacks=[callback]).train()
    quantized = torch.ao.quantization.quantize_dynamic(callback.average.module.eval(), {nn.Linear})
    assert quantized(BATCH).logits.shape == (4, 4)


@pytest.mark.slow
def test_a_pickled_model_loads_without_the_package(tmp_path):
    torch.save(ran(make(tmp_path, projection_dim=8)), tmp_path / "model.pt")
    script = """
import sys, torch
model = torch.load("model.pt", weights_only=False)
assert not [name for name in sys.modules if name.startswith("clce_hf")]
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=300)


class Replace(TrainerCallback):
    """Gives the model a new classification layer in the middle of training."""

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.classifier = nn.Linear(32, 4)


def test_the_layer_is_found_on_the_model_that_is_run(tmp_path):
    trainer = make(tmp_path)
    trainer.model.classifier = nn.Linear(32, 4)
    assert "eval_contrastive_loss" in trainer.evaluate()
    trainer.model = vit(seed=3)
    assert "eval_contrastive_loss" in trainer.evaluate()
    trainer.train()
    assert len(logged(trainer, "contrastive_loss")) == 2
    replaced = make(tmp_path, callbacks=[Replace()])
    replaced.train()
    assert len(logged(replaced, "contrastive_loss")) == 2
    assert not hooks(replaced.model)


def test_other_peoples_hooks_see_plain_outputs(tmp_path):
    trainer, seen = make(tmp_path, projection_dim=8), []
    handle = trainer.model.register_forward_hook(lambda *args: seen.append(type(args[-1]).__name__))
    trainer.train()
    handle.remove()
    assert set(seen) == {"ImageClassifierOutput"}
    assert not hooks(trainer.model)


class Broken(nn.Module):
    """Fails behind the classification layer, at a given call."""

    def __init__(self, at):
        super().__init__()
        self.body, self.head, self.left = nn.Linear(768, 32), nn.Linear(32, 4), at
        self.seen = []

    def forward(self, pixel_values):
        embeddings = self.body(pixel_values.flatten(1))
        self.seen.append(weakref.ref(embeddings))
        logits = self.head(embeddings)
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return {"logits": logits}


@pytest.mark.parametrize("at", [0, 1])
def test_an_interrupted_run_leaves_no_hook_and_holds_no_activation(tmp_path, at):
    trainer = make(tmp_path, Broken(at), projection_dim=8)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    gc.collect()
    assert len(trainer.model.seen) == at + 1
    assert not any(reference() is not None for reference in trainer.model.seen)
    assert not hooks(trainer.model)
    assert "clce_projection" not in " ".join(dict(trainer.model.named_modules()))
    trainer.model.left = 100
    assert "eval_contrastive_loss" in trainer.evaluate()


def test_what_is_evaluated_on_is_let_go(tmp_path):
    def tensors_and_data_sets(cls):
        trainer = make(tmp_path, cls=cls)
        counts, references = [], []
        for seed in range(4):
            images = Images(8, seed=seed)
            references.append(weakref.ref(images))
            trainer.evaluate(images)
            trainer.predict(images)
            del images
            gc.collect()
            counts.append(sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()))
        # Trainer itself keeps the data set of the last one.
        return counts[-1] - counts[0], [reference() is None for reference in references]

    assert tensors_and_data_sets(CLCETrainer) == tensors_and_data_sets(Trainer)


def test_a_run_leaves_no_more_numbers_than_in_stock_trainer(tmp_path):
    def left(cls):
        trainer = make(tmp_path, cls=cls)
        trainer.evaluate()
        gc.collect()
        before = {id(thing) for thing in gc.get_objects()}
        trainer.train()
        trainer.evaluate()
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.model.zero_grad()
        trainer.accelerator.free_memory()
        gc.collect()
        return sum(
            isinstance(thing, torch.Tensor)
            and thing.is_floating_point()
            and thing.dim() > 0
            and id(thing) not in before
            for thing in gc.get_objects()
        )

    assert left(CLCETrainer) <= left(Trainer)


@pytest.mark.parametrize("fields", [{}, {"projection_dim": 8}])
def test_hooks_cost_no_recompilation(tmp_path, fields):
    compiled = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
    graphs = []
    for steps in (2, 6):
        torch.compiler.reset()
        counters.clear()
        trainer = make(tmp_path, **compiled, **fields)
        trainer.args.max_steps = steps
        trainer.train()
        for _ in range(steps):
            trainer.evaluate()
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[0] == graphs[1]


def test_a_model_that_was_compiled_and_run_before_trains(tmp_path):
    model = torch.compile(vit(), backend="aot_eager")
    model.train()(BATCH)
    trainer = make(tmp_path, model, remove_unused_columns=False)
    trainer.train()
    assert len(logged(trainer, "loss")) == 2
