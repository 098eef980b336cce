"""Fine-tune a checkpoint on a folder of images with CLCE.

A script for Transformers' Trainer in which two names changed: CLCETrainer and CLCEConfig.

    python examples/image_folder.py path/to/images google/vit-base-patch16-224-in21k runs/photos
    accelerate launch examples/image_folder.py path/to/images ...

The folder holds train/CLASS/*.jpg and validation/CLASS/*.jpg.
"""

import sys

import torch
from datasets import load_dataset
from torchvision.transforms import v2
from transformers import AutoImageProcessor, AutoModelForImageClassification

from clce_hf import CLCEConfig, CLCETrainer


def main(images, checkpoint, output, *, epochs=5.0):
    dataset = load_dataset("imagefolder", data_dir=images)
    names = dataset["train"].features["label"].names
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageClassification.from_pretrained(
        checkpoint,
        num_labels=len(names),
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        ignore_mismatched_sizes=True,
    )
    augment = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomRotation(10)])

    def to_pixels(rows, augment=None):
        images = [image.convert("RGB") for image in rows["image"]]
        if augment is not None:
            images = [augment(image) for image in images]
        pixels = processor(images, return_tensors="pt")["pixel_values"]
        return {"pixel_values": list(pixels), "labels": rows["label"]}

    def accuracy(prediction):
        hits = prediction.predictions.argmax(-1) == prediction.label_ids
        return {"accuracy": float(hits.mean())}

    args = CLCEConfig(
        output,
        head_init="class_means",
        per_device_train_batch_size=32,
        num_train_epochs=epochs,
        learning_rate=5e-5,
        warmup_steps=0.1,
        bf16=torch.cuda.is_available(),
        eval_strategy="epoch",
        remove_unused_columns=False,  # to_pixels needs the image column
    )
    trainer = CLCETrainer(
        model,
        args,
        train_dataset=dataset["train"].with_transform(lambda rows: to_pixels(rows, augment)),
        eval_dataset=dataset["validation"].with_transform(to_pixels),
        processing_class=processor,
        compute_metrics=accuracy,
    )
    trainer.train()
    trainer.save_model()
    return trainer.evaluate()


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
