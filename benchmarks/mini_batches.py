"""What cached mini-batches cost and save: time, gradients and peak memory of CLCETrainer.

    python benchmarks/mini_batches.py time      # batch 256 in mini-batches of 32 against plain
    python benchmarks/mini_batches.py memory    # batch 4096 in mini-batches of 32 against plain 32

A ViT of 7.2 M parameters and images of 32 px.
"""

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from torch.utils.data import TensorDataset
from transformers import TrainerCallback, ViTConfig, ViTForImageClassification

from clce_hf import CLCEConfig, CLCETrainer

MINI_BATCH = 32


class Clock(TrainerCallback):
    """Seconds of each optimizer step, and the gradients of the first."""

    def __init__(self):
        self.seconds, self.gradients = [], None

    def on_step_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter()

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if self.gradients is None:
            self.gradients = {n: p.grad.clone() for n, p in model.named_parameters()}

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(time.perf_counter() - self.start)


def train(images, labels, batch_size, steps, **fields):
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=384,
            num_hidden_layers=4,
            num_attention_heads=6,
            intermediate_size=1536,
            image_size=32,
            patch_size=4,
            num_labels=10,
        )
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        args = CLCEConfig(
            folder,
            per_device_train_batch_size=batch_size,
            max_steps=steps,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            max_grad_norm=0.0,
            **fields,
        )
        trainer = CLCETrainer(
            model,
            args,
            train_dataset=TensorDataset(images, labels),
            data_collator=lambda rows: {
                "pixel_values": torch.stack([pixels for pixels, _ in rows]),
                "labels": torch.stack([label for _, label in rows]),
            },
            callbacks=[clock],
        )
        trainer.train()
    return clock, sum(p.numel() for p in model.parameters())


def data(n):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 32, 32, generator=generator)
    return images, torch.randint(10, (n,), generator=generator)


def compare_time(turns):
    images, labels = data(256)
    ratios, plain, cached = [], None, None
    for _ in range(turns):
        plain, parameters = train(images, labels, 256, 3)
        cached, _ = train(images, labels, 256, 3, cached_mini_batch_size=MINI_BATCH)
        ratios.append(min(cached.seconds[1:]) / min(plain.seconds[1:]))
        gc.collect()
    largest = max(value.abs().max() for value in plain.gradients.values())
    error = max(
        (cached.gradients[name] - value).abs().max() for name, value in plain.gradients.items()
    )
    print(f"{parameters / 1e6:.1f} M parameters, batch 256, mini-batch {MINI_BATCH}")
    print(
        f"time, cached / plain: {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
        f"{max(ratios):.2f} over {turns} turns), plain step {min(plain.seconds):.2f} s"
    )
    print(f"gradient error, relative to the largest: {float(error / largest):.1e}")


def compare_memory():
    peaks = {}
    for mode in ("plain", "cached"):
        command = [sys.executable, __file__, "peak", "--mode", mode]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[mode] = json.loads(done.stdout.splitlines()[-1])["mib"]
        print(f"{mode:>7}: peak resident memory {peaks[mode]:.0f} MiB", flush=True)
    print(f"batch 4096 cached / batch 32 plain: {peaks['cached'] / peaks['plain']:.2f}")


def peak(mode):
    images, labels = data(8192)
    if mode == "plain":
        train(images, labels, MINI_BATCH, 4)
    else:
        train(images, labels, 4096, 1, cached_mini_batch_size=MINI_BATCH)
    print(json.dumps({"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["time", "memory", "peak"])
    parser.add_argument("--mode", choices=["plain", "cached"], default="plain")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    if args.what == "time":
        compare_time(args.turns)
    elif args.what == "memory":
        compare_memory()
    else:
        peak(args.mode)


if __name__ == "__main__":
    main()
