"""Train on groups of images of one class, however two processes share the batches.

accelerate launch ... tests/support/grouping_cases.py folder
"""

import sys

from clce_hf import CLCETrainer
from support.launching import leave_together
from support.tiny import Images, config, vit


def main(folder: str) -> None:
    for sharing in ({"split_batches": True}, {"dispatch_batches": True}):
        args = config(
            folder,
            samples_per_class=4,
            per_device_train_batch_size=16,
            accelerator_config=sharing,
            max_steps=6,
        )
        # Two epochs: the last batch of one is cut through a group where batches are dispatched.
        trainer = CLCETrainer(vit(), args, train_dataset=Images(90))
        assert trainer.accelerator.num_processes == 2
        trainer.train()
        args.samples_per_class = 16
        try:
            trainer.train()
        except ValueError as error:
            print(f"refused: {sharing} {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
    leave_together()
