"""Cost of a memory of past embeddings: of the contrastive term alone, and of a step of ViT-base.

Memories of all sizes take turns in one process, and times are medians. Extra memory is the peak
resident memory of a process of its own, less what it held just before, which the memory is part of.

    python benchmarks/memory_cost.py --turns 15 --steps 3
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from taking_turns import Noise, seconds_of_steps
from transformers import TrainerCallback, ViTConfig, ViTForImageClassification

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.loss.distributed import Keys, contrastive_term

BATCH, DIM, CLASSES = 32, 768, 100


def past_of(size):
    if size == 0:
        return None
    rows = torch.randn(size, DIM)
    # In place: a copy would raise the peak that the term is measured against.
    return Keys(rows.div_(rows.norm(dim=1, keepdim=True)), torch.randint(CLASSES, (size,)))


def seconds_of_term(past):
    leaf, labels = torch.randn(BATCH, DIM).requires_grad_(), torch.arange(BATCH) % CLASSES
    start = time.perf_counter()
    term = contrastive_term(leaf, labels, temperature=0.1, beta=1.0, variant="in", past=past)
    term.loss.backward()
    return time.perf_counter() - start


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def print_extra_mib(size):
    past = past_of(size)
    seconds_of_term(past_of(64))  # what libraries allocate once
    before = peak_mib()
    seconds_of_term(past)
    print(json.dumps(peak_mib() - before))


def extra_mib(size):
    command = [sys.executable, __file__, "--extra-mib-of", str(size)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class FilledMemory(TrainerCallback):
    """Fills the memory of a trainer, which is empty when training begins."""

    def __init__(self, trainer, size):
        self.trainer, self.size = trainer, size

    def on_train_begin(self, *args, **kwargs):
        if self.size:
            self.trainer._memory.add(past_of(self.size))


def make_trainer(size, steps, folder):
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(num_labels=CLASSES))
    args = CLCEConfig(
        folder,
        max_steps=steps,
        memory_size=size,
        per_device_train_batch_size=BATCH,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = CLCETrainer(model, args, train_dataset=Noise(steps * BATCH, 224, CLASSES))
    trainer.add_callback(FilledMemory(trainer, size))
    return trainer


def in_turns(seconds_of, contenders, turns):
    """Return the seconds of each contender, turn by turn, the first of which does not count."""
    times = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            seconds = seconds_of(contenders[name])
            if turn:
                times[name].append(seconds)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1024, 16384, 65536])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--steps", type=int, default=3, help="turns of whole steps; 0 for none")
    parser.add_argument("--extra-mib-of", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.extra_mib_of is not None:
        return print_extra_mib(args.extra_mib_of)

    # First, since a process inherits the peak of the one that starts it.
    extra = {size: extra_mib(size) for size in args.sizes}
    times = in_turns(seconds_of_term, {n: past_of(n) for n in args.sizes}, args.turns)
    print("| memory | ms, forward and backward | extra MiB | held MiB |\n|---|---|---|---|")
    for size, seconds in times.items():
        held = size * (4 * DIM + 8) / 2**20
        milliseconds = 1e3 * statistics.median(seconds)
        print(f"| {size:,} | {milliseconds:.1f} | {extra[size]:.0f} | {held:.0f} |", flush=True)
    if args.steps == 0:
        return

    sizes = args.sizes[0], args.sizes[-1]
    with tempfile.TemporaryDirectory() as folder:
        trainers = [make_trainer(size, args.steps + 1, folder) for size in sizes]
        less, more = seconds_of_steps(trainers, args.steps)
    for size, seconds in zip(sizes, (less, more), strict=True):
        print(f"a step of ViT-base with {size:,}: {statistics.median(seconds):.2f} s")
    ratio = statistics.median(b / a for a, b in zip(less, more, strict=True))
    added = statistics.median(times[args.sizes[-1]]) - statistics.median(times[args.sizes[0]])
    print(f"ratio of the steps: {ratio:.4f} (median of {args.steps} turns)")
    print(f"the term's share of a step: {added / statistics.median(less):.4f} more")


if __name__ == "__main__":
    main()
