"""A run in several processes that can be killed in the middle, for tests of resuming.

    accelerate launch ... interrupted_run.py FOLDER [--kill-at STEP] [--resume] [fields ...]

Process 0 writes what was logged to FOLDER/log.json.
"""

import argparse
import json
import os
import signal
from pathlib import Path

from transformers import HfArgumentParser, TrainerCallback

from clce_hf import CLCEConfig, CLCETrainer
from support.launching import leave_together, shard_on_cpu
from support.resuming import NoisyImages
from support.tiny import vit


class KillWorker(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step and args.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--samples_per_class", type=int, default=None)
    known, others = parser.parse_known_args()
    defaults = {
        "output_dir": str(known.folder / "run"),
        "per_device_train_batch_size": 4,
        "projection_dim": 8,
        "max_steps": 10,
        "logging_steps": 1,
        "save_steps": 3,
        "disable_tqdm": True,
        "use_cpu": True,
        "report_to": "none",
    }
    parsed = HfArgumentParser(CLCEConfig).parse_args_into_dataclasses(
        [f"--{name}={value}" for name, value in defaults.items()] + others
    )
    parsed[0].samples_per_class = known.samples_per_class
    if parsed[0].fsdp:
        shard_on_cpu()
    model = vit(hidden_dropout_prob=0.2)
    trainer = CLCETrainer(model, parsed[0], train_dataset=NoisyImages(32, num_classes=3))
    assert trainer.accelerator.num_processes == 2
    assert trainer.is_fsdp_enabled == bool(parsed[0].fsdp)
    if known.kill_at is not None:
        trainer.add_callback(KillWorker(known.kill_at))
    trainer.train(resume_from_checkpoint=known.resume)
    trainer.save_model(str(known.folder / "final"))
    if trainer.is_world_process_zero():
        (known.folder / "log.json").write_text(json.dumps(trainer.state.log_history))


if __name__ == "__main__":
    main()
    leave_together()
