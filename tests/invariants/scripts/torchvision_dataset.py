"""A torchvision data set, whose samples are tuples."""

import sys

import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
transform = v2.Compose([v2.ToImage(), v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True)])
train = ImageFolder(f"{photos}/train", transform)
held_out = ImageFolder(f"{photos}/validation", transform)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, num_labels=len(train.classes), ignore_mismatched_sizes=True
)


def collate(samples):
    images, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


args = TrainingArguments(
    output, max_steps=6, per_device_train_batch_size=10, logging_steps=2, use_cpu=True
)
trainer = Trainer(model, args, collate, train, held_out)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate()
