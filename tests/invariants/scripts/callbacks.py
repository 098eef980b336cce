"""Metrics of one's own, callbacks, early stopping and the best model."""

import sys

import numpy as np
from datasets import load_dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EarlyStoppingCallback,
    TrainerCallback,
)
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
dataset = load_dataset("imagefolder", data_dir=photos).rename_column("label", "labels")
processor = AutoImageProcessor.from_pretrained(checkpoint)
model = AutoModelForImageClassification.from_pretrained(
    checkpoint, num_labels=4, ignore_mismatched_sizes=True
)


def to_pixels(rows):
    images = [image.convert("RGB") for image in rows["image"]]
    return {"pixel_values": processor(images)["pixel_values"], "labels": rows["labels"]}


def compute_metrics(prediction):
    logits, labels = prediction
    hits = np.argmax(logits, axis=-1) == labels
    return {"accuracy": hits.mean().item(), "errors": int((~hits).sum())}


class Recorder(TrainerCallback):
    """Counts what happens."""

    def __init__(self):
        self.epochs = 0

    def on_epoch_end(self, args, state, control, **kwargs):
        self.epochs += 1


args = TrainingArguments(
    output,
    num_train_epochs=20,
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=2,
    logging_strategy="epoch",
    load_best_model_at_end=True,
    metric_for_best_model="accuracy",
    learning_rate=0.0,
    remove_unused_columns=False,
    use_cpu=True,
)
recorder = Recorder()
trainer = Trainer(
    model=model,
    args=args,
    train_dataset=dataset["train"].with_transform(to_pixels),
    eval_dataset=dataset["validation"].with_transform(to_pixels),
    compute_metrics=compute_metrics,
    callbacks=[recorder, EarlyStoppingCallback(early_stopping_patience=2)],
)
trainer.train()
assert recorder.epochs == 3, "nothing is learned at a learning rate of 0, so it stops"
trainer.save_model()
metrics = trainer.evaluate()
