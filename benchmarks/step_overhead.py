"""Time of a CLCETrainer step over a stock Trainer step: ViT-small, 224 px, batch 32.

The two take turns in one process, each going first every other time; the ratio is the median.

    python benchmarks/step_overhead.py --turns 12
"""

import argparse
import statistics
import tempfile
import time

import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from clce_hf import CLCETrainer


def make_trainer(cls, folder):
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
    trainer = cls(model, TrainingArguments(folder, max_steps=1))
    trainer.create_optimizer()
    return trainer


def seconds_of_step(trainer, batch):
    start = time.perf_counter()
    count = torch.tensor(len(batch["labels"]), device=trainer.args.device)
    loss = trainer.training_step(trainer.model, batch, num_items_in_batch=count)
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    loss.item()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=12)
    args = parser.parse_args()

    batch = {
        "pixel_values": torch.randn(args.batch, 3, 224, 224),
        "labels": torch.arange(args.batch) % 10,
    }
    with tempfile.TemporaryDirectory() as folder:
        stock, ours = (make_trainer(cls, folder) for cls in (Trainer, CLCETrainer))
        pairs = []
        for turn in range(args.turns + 1):
            order = (stock, ours) if turn % 2 else (ours, stock)
            times = {trainer: seconds_of_step(trainer, dict(batch)) for trainer in order}
            if turn:
                pairs.append((times[stock], times[ours]))
    ratios = [ours / stock for stock, ours in pairs]
    print(f"stock Trainer  {statistics.median(s for s, _ in pairs):.3f} s per step")
    print(f"CLCETrainer    {statistics.median(o for _, o in pairs):.3f} s per step")
    print(f"ratio          {statistics.median(ratios):.4f} (median of {len(ratios)} turns)")


if __name__ == "__main__":
    main()
