"""A checkpoint of timm, through Transformers' wrapper."""

import sys

import torch
from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
dataset = load_dataset("imagefolder", data_dir=photos)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, num_labels=4, ignore_mismatched_sizes=True
)
processor = AutoImageProcessor.from_pretrained(checkpoint)


def to_pixels(rows):
    images = [processor(image.convert("RGB"))["pixel_values"][0] for image in rows["image"]]
    return {"pixel_values": images, "label": rows["label"]}


def collate(rows):
    pixels = torch.stack([torch.as_tensor(row["pixel_values"]) for row in rows])
    return {"pixel_values": pixels, "labels": torch.tensor([row["label"] for row in rows])}


args = TrainingArguments(
    output, remove_unused_columns=False, max_steps=2, logging_steps=1, use_cpu=True
)
trainer = Trainer(
    model,
    args,
    train_dataset=dataset["train"].with_transform(to_pixels),
    eval_dataset=dataset["validation"].with_transform(to_pixels),
    processing_class=processor,
    data_collator=collate,
)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate()
