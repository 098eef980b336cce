"""LoRA with PEFT: a few weights of the backbone, and the classifier."""

import sys

import torch
from datasets import load_dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoImageProcessor, AutoModelForImageClassification
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
dataset = load_dataset("imagefolder", data_dir=photos)
processor = AutoImageProcessor.from_pretrained(checkpoint)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, num_labels=4, ignore_mismatched_sizes=True
)
lora = LoraConfig(
    r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]
)
model = get_peft_model(model, lora)


def to_pixels(rows):
    images = [image.convert("RGB") for image in rows["image"]]
    rows["pixel_values"] = processor(images, return_tensors="pt")["pixel_values"]
    return rows


def collate(rows):
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": pixels, "labels": torch.tensor([row["label"] for row in rows])}


args = TrainingArguments(
    output,
    remove_unused_columns=False,
    label_names=["labels"],
    max_steps=4,
    logging_steps=1,
    use_cpu=True,
)
trainer = Trainer(
    model,
    args,
    train_dataset=dataset["train"].with_transform(to_pixels),
    eval_dataset=dataset["validation"].with_transform(to_pixels),
    data_collator=collate,
)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate()
