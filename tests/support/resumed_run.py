"""Runs in several processes that resume from their own checkpoints, for tests of resuming.

    accelerate launch ... resumed_run.py FOLDER

Process 0 writes the losses of each whole run, and of one that resumed, to FOLDER/losses.json.
"""

import json
import sys
from pathlib import Path

from accelerate import PartialState

from support.launching import leave_together
from support.resuming import NoisyImages, NoisyStream, run
from support.tiny import logged

WORKERS = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
UNSEEDED = {"accelerator_config": {"use_seedable_sampler": False}}
CASES = {
    "here": (6, {}),
    "in workers": (6, {**WORKERS, "samples_per_class": 2}),
    "unseeded": (6, UNSEEDED),
    "unseeded, at the end of an epoch": (4, UNSEEDED),
    "dispatched": (6, {"accelerator_config": {"dispatch_batches": True}}),
    "stream": (6, {}),
}


def main():
    folder, found = Path(sys.argv[1]), {}
    for name, (stop, case) in CASES.items():
        # Four steps an epoch.
        data = NoisyStream(28) if name == "stream" else NoisyImages(28)
        fields = {"data": data, "per_device_train_batch_size": 4, "save_steps": 2, **case}
        fields |= {"max_steps": 8} if name == "stream" else {"num_train_epochs": 2}
        trainer = run(folder / name, **fields)
        assert trainer.accelerator.num_processes == 2
        again = run(folder / f"{name} again", resume=folder / name / f"checkpoint-{stop}", **fields)
        found[name] = [logged(trainer, "loss"), logged(again, "loss")]
    if PartialState().is_main_process:
        (folder / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
    leave_together()
