"""Time of a CLCETrainer step over a stock Trainer step: ViT-small, 224 px, batch 32.

Both train as `train()` does, with the defaults, CLCETrainer's memory included, and take turns in
one process, each going first every other time; the ratio is the median.

    python benchmarks/step_overhead.py --turns 12
"""

import argparse
import statistics
import tempfile

import torch
from taking_turns import Noise, seconds_of_steps
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from clce_hf import CLCETrainer


def make_trainer(cls, folder, args):
    torch.manual_seed(0)
    model = ViTForImageClassification(
        ViTConfig(
            hidden_size=384,
            num_hidden_layers=12,
            num_attention_heads=6,
            intermediate_size=1536,
            image_size=224,
            num_labels=10,
        )
    )
    steps = args.turns + 1
    settings = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=args.batch,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    return cls(model, settings, train_dataset=Noise(steps * args.batch, 224, 10))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=12)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        trainers = [make_trainer(cls, folder, args) for cls in (Trainer, CLCETrainer)]
        stock, ours = seconds_of_steps(trainers, args.turns)
    ratios = [a / b for a, b in zip(ours, stock, strict=True)]
    print(f"stock Trainer  {statistics.median(stock):.3f} s per step")
    print(f"CLCETrainer    {statistics.median(ours):.3f} s per step")
    print(f"ratio          {statistics.median(ratios):.4f} (median of {len(ratios)} turns)")


if __name__ == "__main__":
    main()
