"""Every bad input gets an error that names the field and the fix."""

import dataclasses
import math
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from support.tiny import Images, config, vit
from torch import nn
from torch.utils.data import IterableDataset
from transformers import TrainerCallback, TrainingArguments, ViTForImageClassification

from clce_hf import CLCEConfig, CLCETrainer, GroupByLabelSampler
from clce_hf.models.classification_layer import candidate_layers, find_classification_layer


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Images()[i] for i in range(16))


class SizedStream(Stream):
    def __len__(self):
        return 16


def labeled(values):
    return [{"pixel_values": torch.zeros(3, 16, 16), "labels": value} for value in values]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"contrastive_weight": 1.5}, r"contrastive_weight must lie in \[0, 1\], got 1.5"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"memory_size": -1}, "memory_size must not be negative, got -1"),
        ({"beta": -1.0}, "beta must be finite and not negative, got -1.0"),
        ({"variant": "mean"}, 'variant must be "in".*or "out", got \'mean\''),
        ({"temperature": "0.3"}, "temperature must be of type float, got '0.3'"),
        ({"contrastive_weight": None}, "contrastive_weight must be of type float, got None"),
        ({"beta": True}, "beta must be of type float, got True"),
        ({"variant": None}, 'variant must be "in".*or "out", got None'),
        ({"memory_size": None}, "memory_size must be of type int, got None: .*0: none"),
        ({"memory_size": 16.0}, r"memory_size must be of type int, got 16\.0"),
        ({"memory_size": np.int64(16)}, r"memory_size must be of type int, got np.int64\(16\)"),
        ({"projection_dim": 8.0}, r"projection_dim must be of type int or None, got 8\.0"),
        ({"projection_dim": True}, "projection_dim must be of type int or None, got True"),
        ({"samples_per_class": 2.0}, r"samples_per_class must be of type int or None, got 2\.0"),
        ({"cached_mini_batch_size": 2.5}, "cached_mini_batch_size must be .*int or None, got 2.5"),
        ({"layer_decay": "0.5"}, "layer_decay must be of type float or None, got '0.5'"),
        ({"gather_across_devices": None}, "gather_across_devices must be of type bool, got None"),
        ({"classification_layer": 1}, "classification_layer must be of type str or None, got 1"),
        ({"classification_layer": ""}, "classification_layer must be the dotted name.*None finds"),
        ({"projection_dim": 0}, "projection_dim must be at least 1, got 0; None contrasts"),
        ({"layer_decay": 0.0}, r"layer_decay must lie in \(0, 1\], got 0.0"),
        ({"layer_decay": 1.1}, r"layer_decay must lie in \(0, 1\], got 1.1"),
        ({"head_init": "means"}, "head_init must be \"class_means\", or None.*got 'means'"),
        ({"samples_per_class": 1}, "samples_per_class must be at least 2"),
        (
            {"samples_per_class": 3},
            "samples_per_class=3 must divide.* 8: change samples_per_class or per_device_train",
        ),
        ({"samples_per_class": 16}, "samples_per_class=16 must divide"),
        (
            {"samples_per_class": 4, "auto_find_batch_size": True},
            "samples_per_class needs a fixed batch size: leave out auto_find_batch_size",
        ),
        (
            {"samples_per_class": 4, "train_sampling_strategy": "sequential"},
            "samples_per_class.*leave train_sampling_strategy at 'random', got 'sequential'",
        ),
    ],
)
def test_a_field_out_of_range(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **fields)


def test_an_integer_is_a_float_and_so_is_one_of_numpy(tmp_path):
    args = config(tmp_path, contrastive_weight=1, temperature=np.float64(0.5), layer_decay=1)
    assert args.to_json_string()


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "samples_per_class chooses rows.*with a length.*got a Stream: leave sam"),
        (SizedStream(), "samples_per_class chooses rows.*got a SizedStream: leave samples_per"),
        (
            torch.arange(4),
            r"type Tensor, has none by .*targets, labels.*train_dataset\.targets",
        ),
    ],
)
def test_grouping_needs_readable_labels(tmp_path, dataset, message):
    args = config(tmp_path, samples_per_class=4)
    with pytest.raises(ValueError, match=message):
        CLCETrainer(vit(), args, train_dataset=dataset)


def test_a_dataset_set_later_is_checked_when_training_starts(tmp_path):
    trainer = CLCETrainer(vit(), config(tmp_path, samples_per_class=4))
    trainer.train_dataset = Stream()
    with pytest.raises(ValueError, match=r"samples_per_class chooses rows.*with a length"):
        trainer.train()


def test_groups_need_two_classes(tmp_path):
    args = config(tmp_path, samples_per_class=4)
    with pytest.raises(ValueError, match=r"attribute 'targets'.*fewer than two classes"):
        CLCETrainer(vit(), args, train_dataset=Images(num_classes=1))
    with pytest.raises(ValueError, match=r"at least two classes"):
        GroupByLabelSampler(torch.zeros(8, dtype=torch.long), 4, 8)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0.0, 1.0, 1.0, 0.0]] * 16, "labels must be one integer class id.*multi-label"),
        ([[0, 1, 1, 0]] * 16, "labels must be one integer class id.*multi-label"),
        ([0.5] * 16, "labels must be one integer class id.*regression"),
    ],
)
def test_labels_that_are_no_classes(tmp_path, labels, message):
    trainer = CLCETrainer(vit(), config(tmp_path), train_dataset=labeled(labels))
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_a_group_that_fills_the_batch(tmp_path):
    args = config(tmp_path, samples_per_class=8, memory_size=0)
    with pytest.raises(ValueError, match=r"samples_per_class=8 fills the batch of 8.*train_batch"):
        CLCETrainer(vit(), args, train_dataset=Images())
    args.contrastive_weight = 0.0  # nothing is contrasted, so nothing is missing
    CLCETrainer(vit(), args, train_dataset=Images())


def test_labels_with_a_trailing_axis_are_classes(tmp_path):
    CLCETrainer(vit(), config(tmp_path), train_dataset=labeled([[0], [1]] * 8)).train()


def test_a_batch_without_labels(tmp_path):
    images = [{"pixel_values": torch.zeros(3, 16, 16)}] * 16
    trainer = CLCETrainer(vit(), config(tmp_path), train_dataset=images)
    with pytest.raises(ValueError, match=r"no labels.*label_names.*remove_unused_columns"):
        trainer.train()


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_a_model_for_another_problem(tmp_path, problem_type):
    with pytest.raises(ValueError, match=rf"problem_type is '{problem_type}'.*single_label"):
        CLCETrainer(vit(problem_type=problem_type), config(tmp_path))


def test_a_model_with_one_label(tmp_path):
    with pytest.raises(ValueError, match=r"num_labels=1.*at least two classes"):
        CLCETrainer(vit(num_labels=1), config(tmp_path))


def test_a_model_without_a_classification_layer(tmp_path):
    model = vit(num_labels=4)
    model.classifier = nn.Identity()
    with pytest.raises(ValueError, match=r"No classification layer.*\(4\).*classification_layer"):
        CLCETrainer(model, config(tmp_path))
    CLCETrainer(model, config(tmp_path, contrastive_weight=0.0))


def test_a_classification_layer_that_is_none(tmp_path):
    with pytest.raises(
        ValueError, match=r"classification_layer='head' is not a module.*classifier"
    ):
        CLCETrainer(vit(), config(tmp_path, classification_layer="head"))


def test_a_layer_that_does_not_make_the_logits_is_found_out(tmp_path):
    model = vit()
    # Registered last and of the right size, but not what the logits come from.
    model.spare = nn.Linear(32, 4)
    trainer = CLCETrainer(model, config(tmp_path), train_dataset=Images())
    with pytest.raises(
        ValueError, match=r"'spare' did not run.*classifier, spare.*classification_layer"
    ):
        trainer.train()
    args = config(tmp_path, classification_layer="classifier")
    CLCETrainer(model, args, train_dataset=Images()).train()


def test_a_backbone_layer_of_the_heads_size_is_not_taken_for_it(tmp_path):
    model = vit(num_labels=48)  # as wide as the MLP of its blocks
    trainer = CLCETrainer(model, config(tmp_path), train_dataset=Images(num_classes=2))
    assert "layers.0.mlp" in " ".join(candidate_layers(model))
    trainer.train()
    assert find_classification_layer(model)[0] == "classifier"


class TwoHeads(ViTForImageClassification):
    def __init__(self, config):
        super().__init__(config)
        self.second = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pixel_values, labels=None):
        pooled = self.vit(pixel_values).last_hidden_state[:, 0]
        return {"logits": self.classifier(pooled) + self.second(pooled)}


def test_two_heads_ask_for_one_to_be_named(tmp_path):
    model = TwoHeads(vit().config)
    trainer = CLCETrainer(model, config(tmp_path), train_dataset=Images())
    with pytest.raises(
        ValueError, match=r"not the model's logits.*classifier, second.*classification_layer"
    ):
        trainer.train()
    named = config(tmp_path, classification_layer="second")
    CLCETrainer(model, named, train_dataset=Images()).train()


def test_a_classification_layer_whose_input_is_no_vector(tmp_path):
    args = config(tmp_path, classification_layer="vit.layernorm")
    trainer = CLCETrainer(vit(), args, train_dataset=Images())
    with pytest.raises(
        ValueError, match=r"'vit.layernorm' is not one vector per image.*classifier"
    ):
        trainer.train()


def test_data_parallel_is_refused(tmp_path):
    args = config(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"nn.DataParallel.*accelerate launch"):
        CLCETrainer(vit(), args)


def test_layer_decay_with_an_optimizer_of_ones_own(tmp_path):
    model = vit()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    args = config(tmp_path, layer_decay=0.5)
    with pytest.raises(ValueError, match=r"leave out layer_decay, or leave out `optimizers`"):
        CLCETrainer(model, args, optimizers=(optimizer, None))


@pytest.mark.parametrize(
    ("poison", "term"), [("classifier.bias", "ce_loss nan"), ("vit.layernorm.bias", "contrastive")]
)
def test_a_loss_that_is_not_finite_names_the_step_and_the_term(tmp_path, poison, term):
    trainer = CLCETrainer(vit(), config(tmp_path, max_steps=4), train_dataset=Images())

    class Poison(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                with torch.no_grad():
                    trainer.model.get_parameter(poison).fill_(math.nan)

    trainer.add_callback(Poison())
    with pytest.raises(FloatingPointError, match=rf"not finite at step 3: .*{term}"):
        trainer.train()


def test_plain_arguments_are_accepted_and_their_batch_size_is_checked_later(tmp_path):
    args = config(tmp_path, samples_per_class=4)
    trainer = CLCETrainer(vit(), args, train_dataset=Images())
    args.per_device_train_batch_size = 6
    with pytest.raises(ValueError, match=r"samples_per_class=4 must divide.* 6"):
        trainer.train()
    with pytest.raises(ValueError, match=r"samples_per_class=4 must divide.* 6"):
        CLCETrainer(vit(), args, train_dataset=Images())
    assert isinstance(CLCETrainer(vit(), config(tmp_path, TrainingArguments)).args.beta, float)


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 4.0), ("memory_size", 0), ("variant", "base")]
)
def test_a_field_of_other_arguments_is_not_taken_for_a_setting(tmp_path, name, value):
    def with_field(base: type) -> Any:
        return dataclasses.make_dataclass("OwnArguments", [(name, Any, value)], bases=(base,))

    own = config(tmp_path, with_field(TrainingArguments))
    with pytest.raises(ValueError, match=f"OwnArguments has its own {name}: rename.*CLCEConfig"):
        CLCETrainer(vit(), own)
    if value != "base":
        assert (
            getattr(CLCETrainer(vit(), config(tmp_path, with_field(CLCEConfig))).args, name)
            == value
        )


def test_an_attribute_set_on_plain_arguments_is_a_setting(tmp_path):
    args = config(tmp_path, TrainingArguments)
    args.temperature = 0.1
    for _ in range(2):  # the same arguments serve several trainers
        trained = CLCETrainer(vit(), args).args
        assert (trained.temperature, trained.beta) == (0.1, CLCEConfig.beta)


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", 0), ("contrastive_weight", 2), ("projection_dim", 0), ("variant", "mean")],
)
def test_a_value_set_after_construction_is_checked_where_a_run_begins(tmp_path, name, value):
    trainer = CLCETrainer(vit(), config(tmp_path), train_dataset=Images())
    setattr(trainer.args, name, value)
    with pytest.raises(ValueError, match=rf"{name} must.*got '?{value}"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("begins_at", [0.0, 1e-6])
def test_a_weight_that_a_callback_raises_from_zero_is_refused(tmp_path, begins_at):
    class Raise(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            args.contrastive_weight = 0.9

    args = config(tmp_path, contrastive_weight=begins_at, projection_dim=8, memory_size=16)
    trainer = CLCETrainer(vit(), args, train_dataset=Images(), callbacks=[Raise()])
    if begins_at == 0:
        with pytest.raises(ValueError, match=r"contrastive_weight was 0 where.*0\.9.*such as 1e-6"):
            trainer.train()
        assert trainer.state.global_step == 1
    trainer.train()  # anew, from a weight that is not 0
    assert trainer.projection_head is not None
    assert trainer.state.global_step == 3


def test_a_trial_of_a_search_with_a_value_out_of_range_is_refused(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    trainer = CLCETrainer(
        args=config(tmp_path, max_steps=1), model_init=lambda: vit(), train_dataset=Images()
    )
    with pytest.raises(ValueError, match=r"temperature must be positive and finite, got -1"):
        trainer.hyperparameter_search(
            hp_space=lambda trial: {"temperature": trial.suggest_float("t", -1.0, -1.0)},
            compute_objective=lambda metrics: 0.0,
            n_trials=1,
            backend="optuna",
        )


def test_config_survives_a_round_trip_as_json(tmp_path):
    args = config(tmp_path, variant="out", samples_per_class=4, projection_dim=8)
    fields = args.to_dict()
    assert (fields["variant"], fields["samples_per_class"]) == ("out", 4)
    assert isinstance(args, CLCEConfig)
