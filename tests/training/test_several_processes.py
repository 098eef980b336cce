"""Several processes, started by `accelerate launch`, train as one with the whole batch does."""

import pytest
from support.scale_cases import (
    STEPS,
    Case,
    differences,
    grid,
    train,
    train_in_processes,
    with_memory,
)

from clce_hf import CLCETrainer
from clce_hf.training.memory import EmbeddingMemory

pytestmark = pytest.mark.early

ALONE = {"gather_across_devices": False, "memory_size": 0}
MORE = [
    Case(arguments={"activation_checkpointing": True}),
    Case(arguments={"activation_checkpointing": True, "cached_mini_batch_size": 3}),
    Case(missing=3, arguments={"max_grad_norm": 0.1, "cached_mini_batch_size": 3}),
    Case(missing=3, arguments={"contrastive_weight": 1.0, "variant": "out", "beta": 0.0}),
    Case(arguments={"contrastive_weight": 1.0, "cached_mini_batch_size": 5, "temperature": 0.05}),
    Case(model="beit", missing=3, arguments={"label_smoothing_factor": 0.2}),
    Case(arguments={"contrastive_weight": 0.0, "cached_mini_batch_size": 3}),
    Case(missing=3, arguments={"head_init": "class_means"}),
    Case(missing=3, soft=True, arguments={"label_smoothing_factor": 0.2, "variant": "out"}),
    Case(
        model="beit",
        missing=3,
        soft=True,
        arguments={"gradient_accumulation_steps": 2, "cached_mini_batch_size": 3},
    ),
]
COUNTS = [20, 7, 3, 0]
MORE += [
    Case(missing=3, class_counts=COUNTS, arguments={"gradient_accumulation_steps": 2}),
    Case(model="beit", missing=3, class_counts=COUNTS, arguments={"contrastive_weight": 0.0}),
    Case(missing=3, soft=True, class_counts=COUNTS, arguments={"cached_mini_batch_size": 3}),
]
MEMORIES_ALONE = Case(
    arguments={**ALONE, "memory_size": 11, "optim": "sgd"}, compared_step=STEPS - 1
)

# Accelerate would shard ViTEmbeddings and, again, what get_input_embeddings finds inside it.
FSDP = {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": ["ViTLayer"]}}
EVEN = {"accelerator_config": {"even_batches": True}}
SHARDED = [
    Case(),
    Case(missing=3, arguments={"projection_dim": 128}),
    Case(missing=3, arguments={"head_init": "class_means"}),
    Case(missing=3, arguments={"gradient_accumulation_steps": 2}),
    Case(arguments={**EVEN, "cached_mini_batch_size": 3}),
    Case(arguments={**EVEN, "cached_mini_batch_size": 5, "gradient_accumulation_steps": 2}),
    Case(arguments={**EVEN, "cached_mini_batch_size": 1, "projection_dim": 5}),
    *with_memory(16)[:4],
]


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory):
    """Train a case with its whole batch at once, in this process, once for all tests."""
    found = {}

    def run(case: Case):
        plain = case.with_arguments(cached_mini_batch_size=None)
        if plain.name not in found:
            found[plain.name] = train(plain, tmp_path_factory.mktemp("one"), 1)
        return found[plain.name]

    return run


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return train_in_processes(grid(16), tmp_path_factory.mktemp("launched"), 1)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    cases = [*grid(16), *MORE, *with_memory(16), Case(arguments=ALONE), MEMORIES_ALONE]
    return train_in_processes(cases, tmp_path_factory.mktemp("two"), 2)


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    cases = [case.with_arguments(**FSDP) for case in SHARDED]
    results = train_in_processes(cases, tmp_path_factory.mktemp("sharded"), 2)
    return {case.name: results[case.with_arguments(**FSDP).name] for case in SHARDED}


@pytest.fixture(scope="module")
def four_processes(tmp_path_factory):
    return train_in_processes([*grid(32), *with_memory(32)], tmp_path_factory.mktemp("four"), 4)


def assert_same(found, expected):
    error = differences(found, expected)
    assert error["gradient"] < 1e-5
    assert error["weight"] < 1e-4
    assert error["prediction"] < 1e-3
    assert error["log"] < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("case", grid(16), ids=lambda case: case.name)
def test_a_process_that_is_launched_alone_trains_as_any(case, one_process, in_one_process):
    assert_same(one_process[case.name], in_one_process(case))


@pytest.mark.parametrize("case", [*grid(16), *MORE, *with_memory(16)], ids=lambda case: case.name)
def test_two_processes_train_as_one(case, two_processes, in_one_process):
    assert_same(two_processes[case.name], in_one_process(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", [*grid(32), *with_memory(32)], ids=lambda case: case.name)
def test_four_processes_train_as_one(case, four_processes, in_one_process):
    assert_same(four_processes[case.name], in_one_process(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", SHARDED, ids=lambda case: case.name)
def test_sharded_models_train_as_one(case, sharded, in_one_process):
    assert_same(sharded[case.name], in_one_process(case))


@pytest.mark.parametrize("case", grid(16), ids=lambda case: case.name)
def test_gradients_are_reduced_once_an_optimizer_step(case, two_processes):
    assert two_processes[case.name]["syncs"] == STEPS


def test_one_process_may_log_alone(two_processes):
    assert all(run["alone"] == 1 for run in two_processes.values())


def test_without_gathering_each_process_contrasts_alone(two_processes, tmp_path):
    # The contrastive terms of micro-batches are averaged like those of processes.
    alone = two_processes[Case(arguments=ALONE).name]
    micro_batches = Case(batch=8, arguments={"memory_size": 0, "gradient_accumulation_steps": 2})
    found = differences(alone, train(micro_batches, tmp_path, 1))
    assert found["gradient"] < 1e-5
    assert found["weight"] < 1e-4
    whole = Case(arguments={"memory_size": 0})
    assert differences(alone, train(whole, tmp_path, 1))["gradient"] > 1e-2


class TwoMemories(CLCETrainer):
    """One process that takes turns with two memories, as two processes have one each."""

    other = EmbeddingMemory(11)

    def training_step(self, *args, **named):
        self._memory, self.other = self.other, self._memory
        return super().training_step(*args, **named)


def test_without_gathering_each_process_has_a_memory_of_its_own(two_processes, tmp_path):
    alone = two_processes[MEMORIES_ALONE.name]
    arguments = {"memory_size": 11, "optim": "sgd", "gradient_accumulation_steps": 2}
    micro_batches = Case(batch=8, arguments=arguments, compared_step=STEPS - 1)
    assert_same(alone, train(micro_batches, tmp_path, 1, TwoMemories))
    of_one = differences(alone, train(micro_batches, tmp_path, 1))
    assert of_one["gradient"] > 1e-2
