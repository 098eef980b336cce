"""A data set of images, transformed when an image is read."""

import sys

import torch
from datasets import load_dataset
from torchvision.transforms import v2
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
dataset = load_dataset("imagefolder", data_dir=photos)
names = dataset["train"].features["label"].names
processor = AutoImageProcessor.from_pretrained(checkpoint)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, num_labels=len(names), ignore_mismatched_sizes=True
)
transform = v2.Compose(
    [
        v2.RGB(),
        v2.PILToTensor(),
        v2.RandomResizedCrop((processor.size["height"], processor.size["width"])),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(processor.image_mean, processor.image_std),
    ]
)


def transforms(rows):
    rows["pixel_values"] = [transform(image) for image in rows.pop("image")]
    return rows


def collate(rows):
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


dataset.set_transform(transforms)
args = TrainingArguments(
    output,
    remove_unused_columns=False,
    eval_strategy="epoch",
    num_train_epochs=2,
    logging_steps=1,
    use_cpu=True,
)
trainer = Trainer(
    model=model,
    args=args,
    data_collator=collate,
    train_dataset=dataset["train"],
    eval_dataset=dataset["validation"],
    processing_class=processor,
)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate()
