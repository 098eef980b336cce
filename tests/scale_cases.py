"""Training runs that must come out alike however many processes share the batch.

    accelerate launch ... tests/scale_cases.py cases.json results/

trains every case of the file and writes what process 0 sees, one safetensors file a case.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tiny import GradientRecorder, Images, beit, config, logged, vit
from torch import Tensor

from clce_hf import CLCEConfig, CLCETrainer

MODELS = {"vit": vit, "beit": beit}
STEPS = 5


@dataclasses.dataclass(frozen=True)
class Case:
    """`batch` images a micro-batch over all processes; `missing` of them in an epoch's last."""

    model: str = "vit"
    batch: int = 16
    missing: int = 0
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        words = [self.model, f"missing-{self.missing}"]
        words += [f"{name}-{value}" for name, value in sorted(self.arguments.items())]
        return "_".join(words).replace("/", "-")


def train(case: Case, folder: Path, num_processes: int) -> dict[str, Tensor]:
    """Return the first step's gradients, the parameters after all steps and the logged terms."""
    arguments: dict[str, Any] = {
        "per_device_train_batch_size": case.batch // num_processes,
        "max_steps": STEPS,
        # Clipping would hide a wrong scale, and so would AdamW.
        "max_grad_norm": 0.0,
        # Some gradients, like those of the keys' biases, are nothing but rounding.
        "adam_epsilon": 1e-6,
        "accelerator_config": {"even_batches": False},
        "report_to": "none",
        "seed": 1,
        **case.arguments,
    }
    micro_batches = arguments.get("gradient_accumulation_steps", 1)
    data = Images(micro_batches * case.batch - case.missing)
    recorder = GradientRecorder()
    args = config(folder / "run", CLCEConfig, **arguments)
    trainer = CLCETrainer(
        MODELS[case.model](), args, train_dataset=data, callbacks=[recorder]
    )
    trainer.train()
    assert trainer.accelerator.num_processes == num_processes
    terms = ["loss", "ce_loss", "contrastive_loss", "positives_per_anchor"]
    return {
        **{f"gradient.{name}": value for name, value in recorder.steps[0].items()},
        **{f"weight.{n}": p.detach().clone() for n, p in trainer.model.named_parameters()},
        **{f"log.{name}": torch.tensor(logged(trainer, name)) for name in terms},
    }


def main(file: str, results: str) -> None:
    # Each run's TrainingArguments set up Accelerate's state anew.
    num_processes = int(os.environ["WORLD_SIZE"])
    for fields in json.loads(Path(file).read_text()):
        case = Case(**fields)
        found = train(case, Path(results), num_processes)
        if os.environ["RANK"] == "0":
            safetensors.torch.save_file(found, Path(results) / f"{case.name}.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
