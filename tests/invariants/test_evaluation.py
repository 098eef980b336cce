"""What Trainer's evaluation promises, stock Trainer beside CLCETrainer."""

import numpy as np
import pytest
import torch
from support.beside_stock import ADDED, accuracy, both
from support.tiny import NUM_CLASSES, Images, logged, vit


def test_prediction(tmp_path):
    def summary(trainer):
        output = trainer.predict(Images(10))
        names = set(output.metrics) - ADDED
        evaluated = trainer.evaluate(metric_key_prefix="held_out")
        evaluated.pop("held_out_contrastive_loss", None)
        return output.predictions.tolist(), output.label_ids.tolist(), names, evaluated.keys()

    predictions, *_ = both(tmp_path, summary, compute_metrics=accuracy)
    assert np.shape(predictions) == (10, NUM_CLASSES)


def test_several_data_sets_are_evaluated_by_name(tmp_path):
    held_out = {"a": Images(6), "b": Images(10, seed=2)}

    def summary(trainer):
        trainer.train()
        names = {
            name
            for entry in trainer.state.log_history
            for name in entry
            if name.startswith("eval_") and "contrastive" not in name
        }
        metrics = trainer.evaluate()
        return names, {name for name in metrics if "contrastive" not in name}

    names, _ = both(
        tmp_path, summary, held_out=held_out, eval_strategy="epoch", compute_metrics=accuracy
    )
    assert {"eval_a_loss", "eval_b_accuracy"} <= names


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"eval_do_concat_batches": False},
        {"include_for_metrics": ["inputs", "loss"]},
        {"preprocess_logits_for_metrics": lambda logits, labels: logits.argmax(-1)},
        {"eval_accumulation_steps": 1},
    ],
    ids=lambda fields: "-".join(fields) or "plain",
)
def test_metrics_are_computed_from_the_same(tmp_path, fields):
    def plain(value):
        if isinstance(value, list | tuple):
            return [plain(part) for part in value]
        return None if value is None else np.asarray(value).round(5).tolist()

    def summary(trainer):
        seen = []

        def compute_metrics(prediction):
            parts = (prediction.predictions, prediction.label_ids, prediction.inputs)
            seen.append(plain([*parts, prediction.losses]))
            return {"size": len(prediction.label_ids)}

        trainer.compute_metrics = compute_metrics
        metrics = trainer.evaluate()
        return seen, metrics["eval_size"], round(metrics["eval_loss"], 5)

    both(tmp_path, summary, per_device_eval_batch_size=5, **fields)


def test_metrics_in_batches(tmp_path):
    seen = []

    def compute_metrics(prediction, compute_result):
        seen.append((tuple(prediction.predictions.shape), compute_result))
        return {"batches": len(seen)} if compute_result else {}

    def summary(trainer):
        seen.clear()
        return trainer.evaluate()["eval_batches"], list(seen)

    batches, _ = both(
        tmp_path,
        summary,
        compute_metrics=compute_metrics,
        batch_eval_metrics=True,
        per_device_eval_batch_size=5,
    )
    assert batches == 3


def test_one_step_by_hand(tmp_path):
    def summary(trainer):
        batch = next(iter(trainer.get_eval_dataloader()))
        loss, logits, labels = trainer.prediction_step(trainer.model, dict(batch), False)
        only, *rest = trainer.prediction_step(trainer.model, dict(batch), True)
        return round(loss.item(), 5), logits.shape, labels.tolist(), round(only.item(), 5), rest

    both(tmp_path, summary)


def test_images_without_labels(tmp_path):
    unlabeled = [{"pixel_values": image} for image in Images(6).pixel_values]

    def summary(trainer):
        output = trainer.predict(unlabeled)
        batch = {"pixel_values": torch.stack([row["pixel_values"] for row in unlabeled])}
        step = trainer.prediction_step(trainer.model, batch, False)
        evaluated = trainer.evaluate(unlabeled)
        kinds = [None if part is None else type(part) for part in step]
        return output.predictions.tolist(), output.label_ids, set(output.metrics), kinds, *evaluated

    both(tmp_path, summary)


def with_hidden_states():
    return vit(output_hidden_states=True)


def test_outputs_beside_the_logits(tmp_path):
    def summary(trainer):
        trainer.train(ignore_keys_for_eval=["hidden_states"])
        shapes = logged(trainer, "eval_shape")
        trainer.compute_metrics = None
        everything = trainer.predict(Images(6)).predictions
        return shapes, [np.shape(part) for part in (everything[0], *everything[1])]

    without, shapes = both(
        tmp_path,
        summary,
        build=with_hidden_states,
        compute_metrics=lambda prediction: {"shape": prediction.predictions.shape},
        eval_strategy="epoch",
    )
    assert without == [(12, NUM_CLASSES)] * 2 and len(shapes) == 4


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_evaluation_in_half_precision(tmp_path, dtype):
    def summary(trainer):
        metrics = trainer.evaluate()
        predictions = trainer.predict(Images(6)).predictions
        dtypes = (str(next(trainer.model.parameters()).dtype), str(predictions.dtype))
        return metrics.keys() - ADDED, dtypes, round(metrics["eval_loss"], 1)

    both(tmp_path, summary, **{f"{dtype}_full_eval": True})


@pytest.mark.parametrize(
    "fields",
    [
        {"eval_use_gather_object": True},
        {"held_out": []},
        {"held_out": {"a": Images(6), "b": []}},
        {"dataloader_drop_last": True, "per_device_eval_batch_size": 5},
        {"label_smoothing_factor": 0.2},
    ],
    ids=lambda fields: ",".join(fields),
)
def test_an_evaluation_measures_the_same(tmp_path, fields):
    timing = ("runtime", "per_second", "time")

    def summary(trainer):
        metrics = trainer.evaluate()
        return {
            name: round(value, 4)
            for name, value in metrics.items()
            if "contrastive" not in name and not name.endswith(timing)
        }

    both(tmp_path, summary, compute_metrics=accuracy, **fields)


def test_one_of_several_data_sets_by_name(tmp_path):
    def summary(trainer):
        return trainer.evaluate("b").keys() - ADDED, len(trainer.get_eval_dataloader("a"))

    both(tmp_path, summary, held_out={"a": Images(6), "b": Images(10)})


def test_the_loss_alone(tmp_path):
    def summary(trainer):
        loader = trainer.get_eval_dataloader()
        output = trainer.evaluation_loop(loader, "x", True)
        return (
            output.predictions,
            output.label_ids,
            output.num_samples,
            output.metrics.keys() - ADDED,
        )

    both(tmp_path, summary)


def test_nothing_to_evaluate_on(tmp_path):
    def summary(trainer):
        trainer.eval_dataset = None
        with pytest.raises(ValueError, match="requires an eval_dataset") as error:
            trainer.evaluate()
        return str(error.value)

    both(tmp_path, summary)
