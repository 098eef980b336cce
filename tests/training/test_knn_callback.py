"""k-NN accuracy while training, by the callback."""

import json
import sys
from pathlib import Path

import datasets
import pytest
import torch
from accelerate import PartialState
from support.launching import launch, leave_together
from support.tiny import Images, config, logged, vit
from support.training import assert_same_weights
from torch.utils.data import IterableDataset
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

from clce_hf import CLCETrainer, KNNCallback
from clce_hf.data import MixingCollator
from clce_hf.evaluation import infer
from clce_hf.loss.targets import IGNORE_INDEX


def trained(folder, callbacks, cls=CLCETrainer, train=None, evaluation=None, **fields):
    fields = {"eval_strategy": "steps", "eval_steps": 2, "max_steps": 4, **fields}
    trainer = cls(
        vit(hidden_dropout_prob=0.1),
        config(folder, **fields),
        train_dataset=Images(32) if train is None else train,
        eval_dataset=Images(22, seed=1) if evaluation is None else evaluation,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def by_hand(model, train, evaluation, k):
    """Written out, image by image, in float64."""
    voters, asked = infer(model, train), infer(model, evaluation)
    right = []
    for vector, label in zip(asked.embeddings.double(), asked.labels.tolist(), strict=True):
        cosine = torch.nn.functional.cosine_similarity(vector, voters.embeddings.double())
        nearest = voters.labels[cosine.argsort(descending=True)[:k]].tolist()
        votes = [nearest.count(i) for i in range(4)]
        right.append(votes.index(max(votes)) == label)
    return sum(right) / len(right)


@pytest.mark.parametrize("weight", [0.9, 0.0])
def test_the_number_is_that_of_the_final_model_by_hand(tmp_path, weight):
    trainer = trained(tmp_path, [KNNCallback(k=5)], contrastive_weight=weight)
    assert len(logged(trainer, "eval_knn_accuracy")) == 2
    metrics = trainer.evaluate()
    expected = by_hand(trainer.model, Images(32), Images(22, seed=1), k=5)
    assert metrics["eval_knn_accuracy"] == logged(trainer, "eval_knn_accuracy")[-1]
    assert metrics["eval_knn_accuracy"] == pytest.approx(expected)
    assert 0.25 < expected < 1
    predicted = trainer.predict(Images(22, seed=1)).metrics
    assert predicted["test_knn_accuracy"] == pytest.approx(expected)
    assert not any(module._forward_hooks for module in trainer.model.modules())


def test_training_is_the_same_to_the_last_digit(tmp_path):
    fields = {"projection_dim": 8}
    without = trained(tmp_path, [], **fields)
    measured = trained(tmp_path, [KNNCallback()], **fields)
    assert logged(measured, "loss") == logged(without, "loss")
    assert logged(measured, "eval_loss") == logged(without, "eval_loss")
    assert_same_weights(measured.model, without.model)


def test_it_chooses_the_best_model_and_stops(tmp_path):
    stop = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=1.0)
    fields = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    trainer = trained(
        tmp_path,
        [stop, KNNCallback(k=3)],
        metric_for_best_model="knn_accuracy",
        max_steps=10,
        **fields,
    )
    measured = logged(trainer, "eval_knn_accuracy")
    assert trainer.state.global_step == 4 and trainer.state.best_metric == max(measured)
    trainer.create_model_card()
    assert "knn_accuracy" in (tmp_path / "README.md").read_text()


def test_several_sets_rows_without_a_label_and_without_any(tmp_path):
    some, unlabeled = Images(22, seed=1), Images(8, seed=2)
    unlabeled.targets = [IGNORE_INDEX] * 8
    some.targets[3] = some.targets[7] = IGNORE_INDEX
    trainer = trained(tmp_path, [KNNCallback(k=5)], evaluation={"a": some, "b": unlabeled})
    rows = torch.utils.data.Subset(some, [i for i in range(22) if i not in (3, 7)])
    expected = by_hand(trainer.model, Images(32), rows, k=5)
    assert logged(trainer, "eval_a_knn_accuracy")[-1] == pytest.approx(expected)
    assert not logged(trainer, "eval_b_knn_accuracy")
    bare = [{"pixel_values": row["pixel_values"]} for row in Images(4)]
    assert "test_knn_accuracy" not in trainer.predict(bare).metrics


class Rows(torch.utils.data.Dataset):
    """Some of the images; tells which it was asked for."""

    def __init__(self, images, kept):
        self.images, self.kept, self.seen = images, kept, []
        self.targets = [images.targets[i] for i in kept]

    def __len__(self):
        return len(self.kept)

    def __getitem__(self, index):
        self.seen.append(index)
        return self.images[self.kept[index]]


def test_few_balanced_voters_and_fewer_votes(tmp_path, caplog):
    images = Images(40)
    keep = [i for i in range(40) if images.targets[i] != 2][:25]
    keep += [i for i in range(40) if images.targets[i] == 2][:1]
    train = Rows(images, keep)
    trainer = trained(tmp_path, [KNNCallback(max_train_samples=15)], train=train, max_steps=1)
    train.seen.clear()
    metrics = trainer.evaluate()
    classes = [train.targets[row] for row in train.seen]
    assert [classes.count(i) for i in range(4)] == [3, 3, 1, 3]
    voters = [images[keep[row]] for row in train.seen]
    expected = by_hand(trainer.model, voters, Images(22, seed=1), k=3)
    assert metrics["eval_knn_accuracy"] == pytest.approx(expected)
    assert expected != by_hand(trainer.model, voters, Images(22, seed=1), k=1)
    told = [r.message for r in caplog.records if r.name == "clce_hf.training.voters"]
    assert len(told) == 1 and "3 nearest images vote, not k=20" in told[0]


def test_one_small_class_does_not_decide_how_many_vote(tmp_path, caplog):
    images = Images(40)
    kept = [images.targets.index(0)] + [i for i in range(40) if images.targets[i] > 0]
    train = Rows(images, kept)
    trainer = trained(tmp_path, [KNNCallback(k=7)], train=train, max_steps=1)
    expected = by_hand(trainer.model, train, Images(22, seed=1), k=7)
    assert trainer.evaluate()["eval_knn_accuracy"] == pytest.approx(expected)
    assert "nearest images vote" not in caplog.text


def test_training_images_are_read_as_those_of_the_evaluation(tmp_path):
    def hub_rows(images, transform):
        columns = {"image": images.pixel_values.numpy(), "labels": images.targets}
        return datasets.Dataset.from_dict(columns).with_transform(transform)

    def plain(rows):
        return {"pixel_values": torch.tensor(rows["image"]), "labels": rows["labels"]}

    def noisy(rows):
        pixels = torch.tensor(rows["image"])
        return {"pixel_values": pixels + 9 * torch.randn_like(pixels), "labels": rows["labels"]}

    train, evaluation = hub_rows(Images(32), noisy), hub_rows(Images(22, seed=1), plain)
    fields = {"remove_unused_columns": False, "max_steps": 1}
    trainer = trained(tmp_path, [KNNCallback(k=5)], train=train, evaluation=evaluation, **fields)
    expected = by_hand(trainer.model, Images(32), Images(22, seed=1), k=5)
    assert trainer.evaluate()["eval_knn_accuracy"] == pytest.approx(expected)


class Stream(IterableDataset):
    def __init__(self, images):
        self.images = images

    def __iter__(self):
        return (self.images[i] for i in range(len(self.images)))


def test_what_it_cannot_measure_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"k must be at least 1, got 0"):
        KNNCallback(k=0)
    with pytest.raises(ValueError, match=r"got a Stream.*KNNCallback\(train_dataset="):
        trained(tmp_path, [KNNCallback()], train=Stream(Images(32)))
    given = trained(tmp_path, [KNNCallback(train_dataset=Images(32))], train=Stream(Images(32)))
    assert logged(given, "eval_knn_accuracy")
    unlabeled = Images(32)
    unlabeled.targets = [IGNORE_INDEX] * 32
    with pytest.raises(ValueError, match=r"none of the 32 training images has a label"):
        trained(tmp_path, [KNNCallback(train_dataset=unlabeled)])


def test_a_second_one_is_refused_until_one_is_taken_away(tmp_path):
    trainer = CLCETrainer(
        vit(),
        config(tmp_path, eval_strategy="steps", eval_steps=1, max_steps=1),
        train_dataset=Images(),
        eval_dataset=Images(),
        callbacks=[KNNCallback(k=1), KNNCallback(k=3)],
    )
    with pytest.raises(ValueError, match=r"there are 2 KNNCallbacks: .*remove_callback"):
        trainer.train()
    trainer.remove_callback(KNNCallback)
    trainer.train()
    assert logged(trainer, "eval_knn_accuracy")


def test_it_is_refused_before_a_step(tmp_path):
    args = config(tmp_path, TrainingArguments, eval_strategy="steps", eval_steps=1)
    data = {"train_dataset": Images(), "eval_dataset": Images()}
    stock = Trainer(vit(), args, **data, callbacks=[KNNCallback()])
    with pytest.raises(ValueError, match="KNNCallback works with CLCETrainer alone"):
        stock.train()
    assert stock.state.global_step == 0
    with pytest.raises(ValueError, match="KNNCallback works with CLCETrainer alone"):
        stock.evaluate()
    data["train_dataset"] = OneHot()
    collator = MixingCollator(mixup_alpha=0.2)
    mixed = CLCETrainer(
        vit(), config(tmp_path, eval_strategy="epoch"), collator, **data, callbacks=[KNNCallback()]
    )
    with pytest.raises(ValueError, match="the data collator mixes those of the training"):
        mixed.train()
    assert mixed.state.global_step == 0


class OneHot(Images):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {**row, "labels": torch.eye(4)[row["labels"]]}


class DoublePrecision(Images):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        return {**row, "pixel_values": row["pixel_values"].double()}


def test_double_precision(tmp_path):
    evaluation, args = DoublePrecision(22, seed=1), config(tmp_path)
    callbacks = [KNNCallback(k=5)]
    trainer = CLCETrainer(
        vit().double(), args, train_dataset=DoublePrecision(), callbacks=callbacks
    )
    measured = trainer.evaluate(evaluation)["eval_knn_accuracy"]
    expected = by_hand(trainer.model, DoublePrecision(), evaluation, k=5)
    assert measured == pytest.approx(expected)


def test_without_training_images_predict_leaves_it_out(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path), callbacks=[KNNCallback()])
    assert "test_knn_accuracy" not in trainer.predict(Images(8)).metrics
    with pytest.raises(ValueError, match="KNNCallback has no training images"):
        trainer.evaluate(Images(8))
    given = [KNNCallback(k=5, train_dataset=Images())]
    trainer = CLCETrainer(vit(), config(tmp_path), callbacks=given)
    assert "test_knn_accuracy" in trainer.predict(Images(8)).metrics


def measured_of_an_untrained_model(folder):
    args = config(folder, per_device_eval_batch_size=3)
    callbacks = [KNNCallback(k=5, max_train_samples=30)]
    trainer = CLCETrainer(vit(), args, train_dataset=Images(32), callbacks=callbacks)
    sets = {"rows": Images(22, seed=1), "stream": Stream(Images(22, seed=1))}
    return trainer.evaluate(sets)


@pytest.mark.slow
def test_processes_share_the_images(tmp_path):
    alone = measured_of_an_untrained_model(tmp_path)
    launch(__file__, str(tmp_path))
    together = json.loads((tmp_path / "metrics.json").read_text())
    assert together.pop("processes") == 2
    for name in ("eval_rows_knn_accuracy", "eval_stream_knn_accuracy"):
        assert together[name] == alone[name] == alone["eval_rows_knn_accuracy"]


if __name__ == "__main__":
    metrics = measured_of_an_untrained_model(sys.argv[1])
    state = PartialState()
    if state.is_main_process:
        text = json.dumps({**metrics, "processes": state.num_processes})
        (Path(sys.argv[1]) / "metrics.json").write_text(text)
    leave_together()
