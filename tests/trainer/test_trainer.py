import copy

import numpy as np
import optuna
import pytest
import torch
from support.tiny import Images, beit, config, logged, vit
from torch.nn import functional as F
from torch.utils.data import IterableDataset
from transformers import (
    AutoModelForImageClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTForImageClassification,
)

from clce_hf import CLCETrainer, clce_loss, label_aware_contrastive_loss
from clce_hf.models.projection import ProjectionHead


def train(cls, model, args, **named):
    trainer = cls(model, args, train_dataset=Images(), **named)
    trainer.train()
    return trainer


def assert_same_weights(ours, theirs):
    theirs = theirs.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


# ---- the loss ----


@pytest.mark.parametrize(("variant", "other"), [("in", "out"), ("out", "in")])
def test_compute_loss_by_hand_is_clce(tmp_path, variant, other):
    model = vit()
    trainer = CLCETrainer(
        model, config(tmp_path, temperature=0.2, beta=0.5, variant=variant, contrastive_weight=0.3)
    )
    dataset = Images(12)  # with two positives for each image: of one, both variants are the same
    batch = {"pixel_values": dataset.pixel_values, "labels": torch.tensor(dataset.targets)}
    model.train()
    loss, outputs = trainer.compute_loss(model, dict(batch), return_outputs=True)
    pooled = model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    expected, of_other = (
        clce_loss(
            outputs.logits,
            pooled,
            batch["labels"],
            contrastive_weight=0.3,
            temperature=0.2,
            beta=0.5,
            variant=kind,
        )
        for kind in (variant, other)
    )
    torch.testing.assert_close(loss, expected)
    assert (expected - of_other).abs() > 1e-3
    assert outputs.hidden_states is None
    assert set(batch) == {"pixel_values", "labels"}


def test_compute_loss_func_replaces_the_cross_entropy(tmp_path):
    seen = []

    def doubled(outputs, labels, num_items_in_batch=None):
        seen.append(int(num_items_in_batch))
        return 2.0 * F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

    ours = train(CLCETrainer, vit(), config(tmp_path), compute_loss_func=doubled)
    plain = train(CLCETrainer, vit(), config(tmp_path))
    assert logged(ours, "ce_loss")[0] == pytest.approx(2 * logged(plain, "ce_loss")[0], rel=1e-5)
    assert logged(ours, "contrastive_loss")[0] == logged(plain, "contrastive_loss")[0]
    assert seen == [8, 8, 8]


def test_label_smoothing_acts_on_the_cross_entropy(tmp_path):
    smooth = train(CLCETrainer, vit(), config(tmp_path, label_smoothing_factor=0.3))
    stock = train(Trainer, vit(), config(tmp_path, TrainingArguments, label_smoothing_factor=0.3))
    assert logged(smooth, "ce_loss")[0] == pytest.approx(logged(stock, "loss")[0], rel=1e-6)
    loss, ce, contrastive = (
        logged(smooth, name)[0] for name in ("loss", "ce_loss", "contrastive_loss")
    )
    assert loss == pytest.approx(0.1 * ce + 0.9 * contrastive, rel=1e-5)


def test_plain_training_arguments_get_the_papers_values(tmp_path):
    args = config(tmp_path, TrainingArguments)
    plain = train(CLCETrainer, vit(), args)
    paper = train(CLCETrainer, vit(), config(tmp_path))
    assert plain.args is args
    assert logged(plain, "loss") == logged(paper, "loss")
    assert_same_weights(plain.model, paper.model)


def test_the_contrastive_term_alone_moves_the_backbone(tmp_path):
    model = vit()
    before = copy.deepcopy(model.state_dict())
    train(CLCETrainer, model, config(tmp_path, contrastive_weight=1.0, weight_decay=0.0))
    after = model.state_dict()
    assert torch.equal(after["classifier.weight"], before["classifier.weight"])
    assert not torch.equal(
        after["vit.embeddings.patch_embeddings.projection.weight"],
        before["vit.embeddings.patch_embeddings.projection.weight"],
    )


# ---- evaluating and logging ----


def test_terms_are_logged_as_means_over_the_interval(tmp_path):
    kinds = {"gradient_accumulation_steps": 2, "max_steps": 4}
    fine = train(CLCETrainer, vit(), config(tmp_path, logging_steps=1, **kinds))
    coarse = train(CLCETrainer, vit(), config(tmp_path, logging_steps=4, **kinds))
    for name in ("loss", "ce_loss", "contrastive_loss", "positives_per_anchor"):
        assert np.mean(logged(fine, name)) == pytest.approx(logged(coarse, name)[0], rel=1e-5)
    for loss, ce, contrastive in zip(
        *(logged(fine, name) for name in ("loss", "ce_loss", "contrastive_loss")), strict=True
    ):
        assert loss == pytest.approx(0.1 * ce + 0.9 * contrastive, rel=1e-5)


def test_positives_per_anchor_are_counted(tmp_path):
    grouped = train(CLCETrainer, vit(), config(tmp_path, samples_per_class=4))
    assert logged(grouped, "positives_per_anchor") == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("batch_size", [1, 8, 32])
@pytest.mark.parametrize("build", [vit, beit])
def test_evaluation_loss_is_the_cross_entropy_of_all_images(tmp_path, build, batch_size):
    model, images = build(), Images(29)
    args = config(tmp_path, per_device_eval_batch_size=batch_size)
    metrics = CLCETrainer(model, args, eval_dataset=images).evaluate()
    with torch.no_grad():
        logits = model.eval()(images.pixel_values).logits
    expected = F.cross_entropy(logits, torch.tensor(images.targets))
    assert metrics["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    stock = Trainer(model, config(tmp_path, TrainingArguments), eval_dataset=images).evaluate()
    assert metrics["eval_loss"] == pytest.approx(stock["eval_loss"], rel=1e-5)
    assert ("eval_contrastive_loss" in metrics) == (batch_size > 1)


class Stream(IterableDataset):
    """The same images, without a length."""

    def __init__(self, images):
        self.images = images

    def __iter__(self):
        yield from (self.images[i] for i in range(len(self.images)))


def test_a_stream_is_evaluated_as_the_data_set_that_it_streams(tmp_path):
    model, images = vit(), Images(29)
    args = config(tmp_path, per_device_eval_batch_size=8)
    metrics = CLCETrainer(model, args).evaluate(images)
    streamed = CLCETrainer(model, args).evaluate(Stream(images))
    for name in ("eval_loss", "eval_contrastive_loss"):
        assert streamed[name] == pytest.approx(metrics[name], rel=1e-5)


def test_a_stream_is_trained_on(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path), train_dataset=Stream(Images(64)))
    trainer.train()
    assert len(logged(trainer, "contrastive_loss")) == 3


def test_evaluation_contrasts_each_batch(tmp_path):
    model, images = vit(), Images(16)
    args = config(tmp_path, per_device_eval_batch_size=16)
    metrics = CLCETrainer(model, args, eval_dataset=images).evaluate(metric_key_prefix="test")
    with torch.no_grad():
        pooled = model.eval().vit(images.pixel_values).last_hidden_state[:, 0]
    expected = label_aware_contrastive_loss(pooled, torch.tensor(images.targets))
    assert metrics["test_contrastive_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_evaluation_weighs_batches_by_their_anchors(tmp_path):
    model, images = vit(), Images(15)
    batches = [[0, 0, 1, 1], [0, 0, 1, 2], [0, 1, 2, 3], [3, 3, 3]]
    images.targets = [label for batch in batches for label in batch]
    args = config(tmp_path, per_device_eval_batch_size=4)
    metrics = CLCETrainer(model, args, eval_dataset=images).evaluate()
    with torch.no_grad():
        pooled = model.eval().vit(images.pixel_values).last_hidden_state[:, 0]
    losses, anchors = [], []
    for embeddings, labels in zip(pooled.split(4), batches, strict=True):
        losses.append(label_aware_contrastive_loss(embeddings, torch.tensor(labels)).item())
        anchors.append(sum(labels.count(label) > 1 for label in labels))
    assert anchors == [4, 2, 0, 3]
    expected = np.average(losses, weights=anchors)
    assert metrics["eval_contrastive_loss"] == pytest.approx(expected, rel=1e-5)


class TupleViT(ViTForImageClassification):
    """Returns a tuple, its loss first where it is given labels, as older models do."""

    def forward(self, pixel_values=None, labels=None):
        return super().forward(pixel_values=pixel_values, labels=labels).to_tuple()


@pytest.mark.parametrize("projection_dim", [None, 8])
@pytest.mark.parametrize("returns_tuple", [False, True])
def test_predictions_are_the_plain_logits(tmp_path, projection_dim, returns_tuple):
    model, images = vit(), Images(12)
    if returns_tuple:
        model.__class__ = TupleViT
    seen = {}

    def accuracy(prediction):
        seen["predictions"], seen["labels"] = prediction.predictions, prediction.label_ids
        return {
            "accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())
        }

    trainer = CLCETrainer(
        model,
        config(tmp_path, projection_dim=projection_dim),
        train_dataset=images,
        eval_dataset=images,
        compute_metrics=accuracy,
    )
    trainer.train()
    metrics = trainer.evaluate()
    with torch.no_grad():
        logits = model.eval()(images.pixel_values)[0].numpy()
    np.testing.assert_allclose(seen["predictions"], logits, rtol=1e-5, atol=1e-6)
    assert seen["labels"].tolist() == images.targets
    assert metrics["eval_accuracy"] == (logits.argmax(-1) == np.array(images.targets)).mean()
    np.testing.assert_allclose(trainer.predict(images).predictions, seen["predictions"])


def test_prediction_without_labels(tmp_path):
    images = Images(6)
    unlabeled = [{"pixel_values": image} for image in images.pixel_values]
    output = CLCETrainer(vit(), config(tmp_path)).predict(unlabeled)
    assert output.predictions.shape == (6, 4)
    assert output.label_ids is None
    assert "test_loss" not in output.metrics


def test_preprocess_logits_for_metrics(tmp_path):
    trainer = CLCETrainer(
        vit(),
        config(tmp_path),
        eval_dataset=Images(12),
        compute_metrics=lambda prediction: {"shape": prediction.predictions.shape[0]},
        preprocess_logits_for_metrics=lambda logits, labels: logits.argmax(-1),
    )
    assert trainer.evaluate()["eval_shape"] == 12
    assert trainer.predict(Images(12)).predictions.shape == (12,)


def test_most_images_without_positives_are_warned_of_once(tmp_path, caplog):
    lonely = Images(64, num_classes=64)
    args = config(tmp_path, max_steps=8)
    CLCETrainer(vit(num_labels=64), args, train_dataset=lonely).train()
    warnings = [
        record.message for record in caplog.records if "samples_per_class" in record.message
    ]
    assert len(warnings) == 1
    assert warnings[0].startswith("100% of the images")
    caplog.clear()
    CLCETrainer(vit(), config(tmp_path, max_steps=8), train_dataset=Images()).train()
    assert "samples_per_class" not in caplog.text


# ---- modes ----


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
    head = trainer.model.projection_head
    before = copy.deepcopy(head.state_dict())
    trainer.train()
    assert head.output.out_features == 8
    assert not torch.equal(head.output.weight, before["output.weight"])
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    other = CLCETrainer(vit(), config(tmp_path, projection_dim=8, seed=5))
    assert other.model.projection_head is not None
    torch.manual_seed(5)
    assert torch.rand(1) == expected


def test_the_seed_alone_decides_the_projection_head(tmp_path):
    heads = []
    for seed in (0, 0, 1):
        model = vit(seed=len(heads))
        CLCETrainer(model, config(tmp_path, projection_dim=8, seed=seed))
        torch.rand(3)
        heads.append(model.projection_head.output.weight)
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
    first = logged(trainer, "loss")
    trainer.train()
    assert logged(trainer, "loss") == first
    assert trainer.model is built[-1]
    assert len(built) == 3
    assert hasattr(built[-1], "projection_head")


def test_a_second_trainer_goes_on_with_the_model_and_its_head(tmp_path):
    model = vit()
    first = train(CLCETrainer, model, config(tmp_path, projection_dim=8))
    head = model.projection_head
    second = train(CLCETrainer, model, config(tmp_path, projection_dim=8))
    assert model.projection_head is head
    assert logged(second, "loss")[0] < logged(first, "loss")[0]
    first.train()
    assert "eval_contrastive_loss" in first.evaluate(Images(16))
    outputs = model.train()(Images(2).pixel_values)
    assert outputs.keys() == {"logits"}
    train(CLCETrainer, model, config(tmp_path, projection_dim=4))
    assert model.projection_head.output.out_features == 4


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
