"""Training runs that must come out alike however many processes share the batch.

    accelerate launch ... tests/support/scale_cases.py cases.json results/ num_processes

trains every case of the file and writes what process 0 sees, one safetensors file a case.
"""

import dataclasses
import gc
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from clce_hf import CLCEConfig, CLCETrainer, LogitAdjustedLoss
from support.launching import launch, leave_together, shard_on_cpu
from support.tiny import (
    GradientRecorder,
    Images,
    SoftImages,
    beit,
    config,
    largest_relative_difference,
    logged,
    vit,
)

MODELS = {"vit": vit, "beit": beit}
STEPS = 5
LOGS = ["loss", "ce_loss", "contrastive_loss", "positives_per_anchor"]
EVALUATED = 19
"""Images: too few for four processes to have a batch of eight each, and the last batch is short."""


@dataclasses.dataclass(frozen=True)
class Case:
    """`batch` images a micro-batch over all processes; `missing` of them in an epoch's last.

    With `class_counts`, the loss is adjusted to them.
    """

    model: str = "vit"
    batch: int = 16
    missing: int = 0
    soft: bool = False
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    model_config: dict[str, Any] = dataclasses.field(default_factory=dict)
    compared_step: int = 0
    class_counts: list[int] | None = None

    @property
    def name(self) -> str:
        words = [f"{self.model} {self.batch} less {self.missing}" + " soft" * self.soft]
        words += [] if self.class_counts is None else [f"counts={self.class_counts}"]
        fields = {**self.arguments, **self.model_config}
        return " ".join(words + [f"{name}={value}" for name, value in fields.items()])

    def with_arguments(self, **arguments: Any) -> "Case":
        return dataclasses.replace(self, arguments={**self.arguments, **arguments})


def grid(batch: int, missing: int = 3, mini_batch_size: int = 3) -> list[Case]:
    """ViT and BEiT, with and without head, accumulation, a short last batch, mini-batches."""
    choices = {
        "projection_dim": (None, 128),
        "gradient_accumulation_steps": (1, 2),
        "cached_mini_batch_size": (None, mini_batch_size),
    }
    return [
        Case(model, batch, absent, arguments=dict(zip(choices, chosen, strict=True)))
        for model in MODELS
        for absent in (0, missing)
        for chosen in itertools.product(*choices.values())
    ]


def with_memory(batch: int) -> list[Case]:
    """A memory that wraps, held against one process in the last of the steps."""
    # With AdamW, the weights would differ by rounding in the last step, and so the gradients.
    size: dict[str, Any] = {"memory_size": 3 * batch // 2 - 1, "optim": "sgd"}
    accumulated, cached = {"gradient_accumulation_steps": 2}, {"cached_mini_batch_size": 3}
    head = {"projection_dim": 128}
    choices = [size, {**size, "memory_size": batch - 3}]
    choices += [{**size, **more} for more in (head, accumulated, cached)]
    choices.append({**size, **accumulated, **cached, **head})
    cases = [Case("vit", batch, 3, arguments=chosen) for chosen in choices]
    cases.append(Case("beit", batch, 3, soft=True, arguments=size))
    return [dataclasses.replace(case, compared_step=STEPS - 1) for case in cases]


class SyncCounter(TrainerCallback):
    """Counts how often DistributedDataParallel reduced all gradients."""

    def __init__(self) -> None:
        self.count = 0
        self.trainer: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        wrapped = self.trainer.model_wrapped
        if isinstance(wrapped, torch.nn.parallel.DistributedDataParallel):
            wrapped.register_comm_hook(None, self._reduce)

    def _reduce(self, state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self.count += bucket.is_last()
        return allreduce_hook(state, bucket)


class LogAlone(TrainerCallback):
    """Logs a loss in the first process alone, in the middle of a step."""

    trainer: Any = None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 2 and args.process_index == 0:
            self.trainer.log({"loss": -1.0, "alone": 1.0})


def whole(value: Tensor) -> Tensor:
    """Put a tensor that FSDP has sharded together, in every process."""
    return value.full_tensor() if isinstance(value, DTensor) else value.clone()


def train(
    case: Case, folder: Path, num_processes: int, trainer_class: type = CLCETrainer
) -> dict[str, Tensor]:
    """Return one step's gradients, the logs, and the weights and predictions after all."""
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": case.batch // num_processes,
        "max_steps": STEPS,
        # Clipping would hide a wrong scale, and so would AdamW.
        "max_grad_norm": 0.0,
        # Some gradients, like those of the keys' biases, are nothing but rounding.
        "adam_epsilon": 1e-6,
        "accelerator_config": {"even_batches": False},
        "report_to": "none",
        **case.arguments,
    }
    images = SoftImages if case.soft else Images
    data = images(arguments.get("gradient_accumulation_steps", 1) * case.batch - case.missing)
    recorder, counter, alone = GradientRecorder(), SyncCounter(), LogAlone()
    args = config(folder / "run", CLCEConfig, **arguments)
    if args.fsdp:
        shard_on_cpu()
    model = MODELS[case.model](**case.model_config)
    callbacks = [recorder, counter, alone]
    loss = None if case.class_counts is None else LogitAdjustedLoss(case.class_counts)
    trainer = trainer_class(
        model, args, train_dataset=data, callbacks=callbacks, compute_loss_func=loss
    )
    counter.trainer = alone.trainer = trainer
    trainer.train()
    predictions = trainer.predict(cast(Any, Images(EVALUATED, seed=1))).predictions
    assert trainer.accelerator.num_processes == num_processes
    assert trainer.is_fsdp_enabled == bool(args.fsdp)
    logged_alone = logged(trainer, "alone")
    history = [entry for entry in trainer.state.log_history if "alone" not in entry]
    trainer.state.log_history = history
    logs = [name for name in LOGS if name in history[0]]
    weights = dict(model.named_parameters())
    if trainer.projection_head is not None:
        weights |= {f"head.{name}": p for name, p in trainer.projection_head.named_parameters()}
    return {
        **{
            f"gradient.{name}": whole(value)
            for name, value in recorder.steps[case.compared_step].items()
        },
        **{f"weight.{name}": whole(value.detach()) for name, value in weights.items()},
        "prediction": torch.as_tensor(predictions),
        **{f"log.{name}": torch.tensor(logged(trainer, name)) for name in logs},
        "alone": torch.tensor(len(logged_alone)),
        "syncs": torch.tensor(counter.count),
    }


def train_in_processes(
    cases: list[Case], folder: Path, num_processes: int
) -> dict[str, dict[str, Tensor]]:
    """Train all cases in one launch of several processes; results by the cases' names."""
    file = folder / "cases.json"
    file.write_text(json.dumps([dataclasses.asdict(case) for case in cases]))
    launch(__file__, str(file), str(folder), str(num_processes), num_processes=num_processes)
    return {
        case.name: safetensors.torch.load_file(folder / f"{i}.safetensors")
        for i, case in enumerate(cases)
    }


def differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, float]:
    """Largest differences: of gradients relative to the largest one, else absolute."""

    def part(run: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
        return {name: value for name, value in run.items() if name.startswith(kind)}

    def largest(kind: str) -> float:
        return max(float((ours[n] - theirs[n]).abs().max()) for n in part(theirs, kind))

    return {
        "gradient": largest_relative_difference(part(ours, "gradient"), part(theirs, "gradient")),
        "weight": largest("weight"),
        "prediction": largest("prediction"),
        "log": largest("log"),
    }


def main(file: str, folder: str, num_processes: str) -> None:
    gc.freeze()  # or the collection at the end of each training would take longer than it
    # Each run's TrainingArguments set up Accelerate's state anew.
    for i, fields in enumerate(json.loads(Path(file).read_text())):
        found = train(Case(**fields), Path(folder), int(num_processes))
        if os.environ["RANK"] == "0":
            safetensors.torch.save_file(found, Path(folder) / f"{i}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
