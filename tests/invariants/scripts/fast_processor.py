"""Pixels made beforehand with the torchvision backend of the image processor."""

import sys

from datasets import load_dataset
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
processor = AutoImageProcessor.from_pretrained(checkpoint, backend="torchvision")
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, num_labels=4, ignore_mismatched_sizes=True
)


def to_pixels(rows):
    images = [image.convert("RGB") for image in rows["image"]]
    return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"]}


dataset = load_dataset("imagefolder", data_dir=photos)
dataset = dataset.map(to_pixels, batched=True).with_format("torch")
args = TrainingArguments(
    output, num_train_epochs=1, gradient_accumulation_steps=2, logging_steps=1, use_cpu=True
)
trainer = Trainer(
    model,
    args,
    train_dataset=dataset["train"],
    eval_dataset=dataset["validation"],
    processing_class=processor,
)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate()
