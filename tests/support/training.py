"""Train a small model, and compare weights."""

import torch

from support.tiny import Images


def train(cls, model, args, **named):
    trainer = cls(model, args, train_dataset=Images(), **named)
    trainer.train()
    return trainer


def assert_same_weights(ours, theirs):
    theirs = theirs.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())
