"""Accuracies over images and over classes, beside scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    recall_score,
    top_k_accuracy_score,
)
from support.tiny import Images, config, logged, vit
from transformers import EvalPrediction

from clce_hf import CLCETrainer
from clce_hf.evaluation import accuracy_by_class, balanced_accuracy, macro_f1
from clce_hf.evaluation.compute_accuracies import compute_accuracies

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")


def drawn(num_classes, n=101, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.choice(num_classes, n, p=generator.dirichlet(np.ones(num_classes)))
    logits = generator.normal(size=(n, num_classes)) + 0.8 * np.eye(num_classes)[labels]
    return logits, labels


@pytest.mark.parametrize("seed", range(5))
def test_they_are_those_of_scikit_learn(seed):
    logits, labels = drawn(7, seed=seed)
    predicted = logits.argmax(1)
    assert compute_accuracies(EvalPrediction(logits, labels)) == pytest.approx(
        {
            "accuracy": accuracy_score(labels, predicted),
            "balanced_accuracy": balanced_accuracy_score(labels, predicted),
            "macro_f1": f1_score(labels, predicted, average="macro"),
            "top_5_accuracy": top_k_accuracy_score(labels, logits, k=5, labels=range(7)),
        },
        abs=1e-12,
    )


def test_images_without_a_class_are_left_out():
    logits, labels = drawn(7)
    expected = compute_accuracies(EvalPrediction(logits[20:], labels[20:]))
    labels[:20] = -100
    assert compute_accuracies(EvalPrediction(logits, labels)) == expected
    with pytest.raises(ValueError, match="no image of eval_dataset has a label but -100"):
        compute_accuracies(EvalPrediction(logits[:20], labels[:20]))


@pytest.mark.parametrize("returned", ["output_hidden_states", "output_attentions"])
def test_of_a_model_that_returns_more_than_logits(tmp_path, returned):
    def metrics(**more):
        model = vit(attn_implementation="eager", **more)
        images = {"train_dataset": Images(), "eval_dataset": Images(22, seed=1)}
        args = config(tmp_path, eval_strategy="epoch")
        trainer = CLCETrainer(model, args, **images, compute_metrics=compute_accuracies)
        trainer.train()
        accuracies = ("eval_accuracy", "eval_balanced_accuracy", "eval_macro_f1")
        return [logged(trainer, name) for name in accuracies]

    assert metrics(**{returned: True}) == metrics()


def test_five_classes_have_no_top_5_accuracy():
    metrics = compute_accuracies(EvalPrediction(*drawn(5)))
    assert set(metrics) == {"accuracy", "balanced_accuracy", "macro_f1"}
    assert all(type(value) is float for value in metrics.values())


def test_a_class_without_images_counts_where_it_is_predicted():
    labels, predicted = torch.tensor([0, 0, 3, 3]), torch.tensor([0, 2, 3, 0])  # 1 is nowhere
    assert balanced_accuracy(predicted, labels) == balanced_accuracy_score(labels, predicted) == 0.5
    expected = f1_score(labels, predicted, average="macro")
    assert macro_f1(predicted, labels) == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx((1 / 2 + 0 + 2 / 3) / 3)


def test_classes_are_listed_with_their_images_from_the_worst_on():
    logits, labels = drawn(6)
    labels[labels == 4] = 3  # a class without an image is not listed
    predicted = logits.argmax(1)
    names = [f"class {label}" for label in range(6)]
    listed = accuracy_by_class(torch.tensor(predicted), torch.tensor(labels), names)
    there = sorted(set(labels.tolist()))
    recalls = recall_score(labels, predicted, average=None, labels=there)
    expected = {
        (names[c], sum(labels == c), recall) for c, recall in zip(there, recalls, strict=True)
    }
    assert {(one.name, one.images, one.accuracy) for one in listed} == expected
    assert [one.accuracy for one in listed] == sorted(one.accuracy for one in listed)
