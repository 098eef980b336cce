"""Seconds of an optimizer step with a fixed batch per process; run by `accelerate launch`.

Takes the number of processes, and checks that it runs in as many.
"""

import os
import statistics
import sys

import torch
from accelerate import PartialState
from mini_batches import data, train


def main(num_processes):
    torch.set_num_threads(1)
    clock, _ = train(*data(64 * num_processes), 64, 12)
    assert PartialState().num_processes == num_processes
    if os.environ["RANK"] == "0":
        print(f"seconds per step {statistics.median(clock.seconds[2:]):.4f}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
