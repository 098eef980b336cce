"""A search for hyperparameters with Optuna."""

import sys

import optuna
import torch
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification
from transformers import Trainer, TrainingArguments

photos, checkpoint, output = sys.argv[1:]
optuna.logging.set_verbosity(optuna.logging.WARNING)
transform = v2.Compose([v2.ToImage(), v2.Resize((16, 16)), v2.ToDtype(torch.float32, scale=True)])
train = ImageFolder(f"{photos}/train", transform)
held_out = ImageFolder(f"{photos}/validation", transform)


def model_init(trial):
    return AutoModelForImageClassification.from_pretrained(
        checkpoint, num_labels=len(train.classes), ignore_mismatched_sizes=True
    )


def collate(samples):
    images, labels = zip(*samples, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def hp_space(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
        "per_device_train_batch_size": trial.suggest_categorical(
            "per_device_train_batch_size", [8, 16]
        ),
    }


args = TrainingArguments(
    output, max_steps=2, eval_strategy="steps", eval_steps=2, logging_steps=1, use_cpu=True
)
trainer = Trainer(
    args=args,
    model_init=model_init,
    data_collator=collate,
    train_dataset=train,
    eval_dataset=held_out,
)
best = trainer.hyperparameter_search(
    direction="minimize", backend="optuna", hp_space=hp_space, n_trials=2
)
assert not isinstance(best, list)
for name, value in best.hyperparameters.items():
    setattr(trainer.args, name, value)
trainer.train()
trainer.save_model()
metrics = trainer.evaluate()
