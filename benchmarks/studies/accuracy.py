"""Test accuracy of CE and CLCE on an image folder, with paired seeds.

Within a seed all see the same images and start from the same head; "grouped" batches are made of
groups of four images of one class, in the same order for CE and CLCE.

    python benchmarks/studies/accuracy.py --data path/to/folder --model path/to/checkpoint

The folder holds train/CLASS/*.jpg and test/CLASS/*.jpg.
"""

import argparse
import statistics
import tempfile
import time

import torch
from datasets import load_dataset
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification, set_seed

from clce_hf import CLCEConfig, CLCETrainer

METHODS = {  # contrastive_weight, samples_per_class
    "CE": (0.0, None),
    "CE, grouped": (0.0, 4),
    "CLCE, grouped": (0.9, 4),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def few_per_class(dataset, shots, seed):
    by_label = {}
    shuffled = dataset.shuffle(seed=seed)
    for row, label in enumerate(shuffled["label"]):
        rows = by_label.setdefault(label, [])
        if len(rows) < shots:
            rows.append(row)
    return shuffled.select(sorted(row for rows in by_label.values() for row in rows))


def with_pixels(dataset, transform):
    def to_pixels(rows):
        images = [transform(image.convert("RGB")) for image in rows["image"]]
        return {"pixel_values": images, "labels": rows["label"]}

    return dataset.with_transform(to_pixels)


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def run(args, seed, train, test, names, weight, samples_per_class):
    set_seed(seed)
    model = AutoModelForImageClassification.from_pretrained(args.model, num_labels=len(names))
    with tempfile.TemporaryDirectory() as folder:
        config = CLCEConfig(
            folder,
            contrastive_weight=weight,
            samples_per_class=samples_per_class,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=args.batch,
            per_device_eval_batch_size=128,
            learning_rate=args.lr,
            warmup_steps=0.1,
            weight_decay=0.05,
            lr_scheduler_type="cosine",
            bf16=True,
            use_cpu=not torch.cuda.is_available(),
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        trainer = CLCETrainer(
            model, config, train_dataset=train, eval_dataset=test, compute_metrics=accuracy
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        return trainer.evaluate(), seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--split", default="test", help="split to evaluate on")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--shots", type=int, default=20)
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--batch", type=int, default=40)
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()

    data = load_dataset("imagefolder", data_dir=args.data)
    names = data["train"].features["label"].names
    normalize = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(args.size, scale=(0.6, 1.0)),
            v2.RandomHorizontalFlip(),
            *normalize,
        ]
    )
    resize = v2.Compose([v2.Resize(args.size), v2.CenterCrop(args.size), *normalize])
    test = with_pixels(data[args.split], resize)
    results = {name: [] for name in args.methods}
    for seed in range(args.seeds):
        train = with_pixels(few_per_class(data["train"], args.shots, seed), augment)
        for name in args.methods:
            weight, samples_per_class = METHODS[name]
            metrics, seconds = run(args, seed, train, test, names, weight, samples_per_class)
            results[name].append(100 * metrics["eval_accuracy"])
            print(
                f"seed {seed}  {name:14} accuracy {results[name][-1]:5.2f}  "
                f"cross-entropy {metrics['eval_loss']:.3f}  {seconds:.0f} s",
                flush=True,
            )
    for name, values in results.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{name:14} mean {statistics.mean(values):5.2f}  std {spread:.2f}")


if __name__ == "__main__":
    main()
