"""Run stock Trainer and CLCETrainer on the same, and compare what they do."""

from pathlib import Path

from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback

from clce_hf import CLCETrainer
from support.tiny import Images, config, vit

TRAINERS = [Trainer, CLCETrainer]
ADDED = {
    *("ce_loss", "contrastive_loss", "positives_per_anchor"),
    *("eval_contrastive_loss", "test_contrastive_loss"),
}


def make(cls, folder, *, build=vit, train=None, held_out=None, **fields):
    named = {
        key: fields.pop(key)
        for key in (
            *("callbacks", "compute_metrics", "data_collator", "optimizers", "model_init"),
            *("preprocess_logits_for_metrics", "optimizer_cls_and_kwargs", "compute_loss_func"),
        )
        if key in fields
    }
    return cls(
        None if "model_init" in named else build(),
        config(folder, **{"max_steps": -1, "num_train_epochs": 2, **fields}),
        train_dataset=Images(24) if train is None else train,
        eval_dataset=Images(12, seed=1) if held_out is None else held_out,
        **named,
    )


def both(folder, summary, subclass=lambda cls: cls, **fields):
    """Return what `summary` says of the stock trainer, having seen the same of ours."""
    stock, ours = (
        summary(make(subclass(cls), folder / cls.__name__, **fields)) for cls in TRAINERS
    )
    assert ours == stock
    return stock


def of_class(cls, **settings):
    """A function that builds a ViT of another class."""

    def build():
        model = vit(**settings)
        model.__class__ = cls
        return model

    return build


def trained(trainer):
    trainer.train()
    return trainer


def accuracy(prediction):
    return {"accuracy": (prediction.predictions.argmax(-1) == prediction.label_ids).mean().item()}


def checkpoints(trainer):
    return sorted(path.name for path in Path(trainer.args.output_dir).glob("checkpoint-*"))


def entries(trainer):
    """Step and names of each entry of the log, without the names that CLCETrainer adds."""
    return [(entry["step"], sorted(set(entry) - ADDED)) for entry in trainer.state.log_history]


class Stream(IterableDataset):
    def __init__(self, n=24):
        self.images = Images(n)

    def __iter__(self):
        yield from (self.images[i] for i in range(len(self.images)))


class Events(TrainerCallback):
    """Records every event in order."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if not name.startswith("on_"):
            return super().__getattribute__(name)

        def record(args, state, control, **kwargs):
            self.seen.append((name, state.global_step))

        return record
