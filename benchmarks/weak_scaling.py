"""Seconds of an optimizer step with a fixed batch a process; run by `accelerate launch`."""

import os
import statistics

import torch
from mini_batches import data, train


def main():
    torch.set_num_threads(1)
    num_processes = int(os.environ["WORLD_SIZE"])
    clock, _ = train(*data(64 * num_processes), 64, 12)
    if os.environ["RANK"] == "0":
        print(f"seconds a step {statistics.median(clock.seconds[2:]):.4f}")


if __name__ == "__main__":
    main()
