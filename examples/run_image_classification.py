"""Fine-tune an image classifier, with the flags of Transformers' script of the same name.

    python examples/run_image_classification.py --train_dir photos/train \
        --model_name_or_path google/vit-base-patch16-224-in21k --ignore_mismatched_sizes \
        --output_dir runs/photos --do_train --do_eval
    accelerate launch examples/run_image_classification.py ...
    python examples/run_image_classification.py run.yaml --learning_rate 1e-4

With `from transformers import Trainer` in place of `CLCETrainer` it trains with cross-entropy; with
`CLCEConfig` in place of `TrainingArguments` it takes the flags of the loss, too.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict
from transformers import TrainingArguments, set_seed

from clce_hf import CLCETrainer as Trainer
from clce_hf.cli.arguments import HubArguments
from clce_hf.cli.errors import exit_on_error, user_errors
from clce_hf.cli.parsing import parse_flags
from clce_hf.cli.ranges import COUNT, DECAY, check_ranges
from clce_hf.cli.resuming import checkpoint_of
from clce_hf.data.load import check_classes, load_labeled_images, load_splits
from clce_hf.data.sources import HubDataset, ImageFolders
from clce_hf.data.transforms import evaluation_rows, training_rows, with_images
from clce_hf.errors import ArgumentError, UserError
from clce_hf.evaluation.compute_accuracies import compute_accuracies
from clce_hf.models.class_names import check_same_classes
from clce_hf.models.pretrained import create_model, load_class_names, load_model


@dataclass
class ModelArguments(HubArguments):
    """Which model to start from."""

    model_name_or_path: str = field(
        default="google/vit-base-patch16-224-in21k",
        metadata={"help": "Model on the Hub, or a folder with a checkpoint."},
    )
    model_type: str | None = field(
        default=None,
        metadata={"help": "Train an untrained model of this type, such as vit, instead."},
    )
    config_name: str | None = field(
        default=None, metadata={"help": "Config, if it is not the model's own."}
    )
    image_processor_name: str | None = field(
        default=None, metadata={"help": "Image processor, if it is not the model's own."}
    )
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Replace a head of another number of classes."}
    )


@dataclass
class DataTrainingArguments:
    """Which images to train and evaluate on."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "Data set on the Hub, or a folder laid out as one."}
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "Its configuration, where it has several."}
    )
    train_dir: str | None = field(
        default=None, metadata={"help": "Folder of training images, CLASS/*.jpg."}
    )
    validation_dir: str | None = field(
        default=None, metadata={"help": "Folder of validation images, CLASS/*.jpg."}
    )
    train_val_split: float | None = field(
        default=0.15,
        metadata={"help": "Share of the training images to hold out, if none are for validation."},
    )
    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on this many images at most, drawn at random."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on this many images at most, drawn at random."}
    )
    image_column_name: str = field(
        default="image", metadata={"help": "Column that holds the images."}
    )
    label_column_name: str = field(
        default="label", metadata={"help": "Column that holds the labels."}
    )

    def __post_init__(self):
        ranges = {"train_val_split": DECAY, "max_train_samples": COUNT, "max_eval_samples": COUNT}
        check_ranges(self, ranges)
        if not (self.dataset_name or self.train_dir or self.validation_dir):
            raise ValueError("Name the images: give dataset_name, train_dir or validation_dir.")

    @property
    def source(self):
        """Where the images are."""
        columns = {"image_column": self.image_column_name, "label_column": self.label_column_name}
        if self.dataset_name:
            return WithoutTest(self.dataset_name, self.dataset_config_name, **columns)
        folders = {"train": self.train_dir, "validation": self.validation_dir}
        return ImageFolders({name: path for name, path in folders.items() if path}, **columns)


class WithoutTest(HubDataset):
    """A data set whose test images are left for later, as in Transformers' script."""

    def load(self, cache_dir=None, token=None):
        splits = super().load(cache_dir, token)
        return DatasetDict({name: split for name, split in splits.items() if name != "test"})


def load_images(data, args, **hub) -> tuple[Dataset | None, Dataset | None]:
    """Return the images to train and to evaluate on; None where the flags ask for none."""

    def drawn(split, count):
        images = load_labeled_images(data.source, split=split, **hub)
        return images.shuffle(seed=args.seed).select(range(min(count or len(images), len(images))))

    if not (data.dataset_name or data.train_dir):
        if args.do_train:
            raise UserError("do_train needs images to train on: give train_dir.")
        return None, drawn("validation", data.max_eval_samples)
    if not (data.train_val_split or args.do_eval):
        train = drawn("train", data.max_train_samples)
        check_classes(train)
        return train, None
    try:
        return load_splits(
            data.source,
            held_out_share=data.train_val_split or 0.0,
            max_train_samples=data.max_train_samples,
            max_eval_samples=data.max_eval_samples,
            seed=args.seed,
            **hub,
        )
    except ArgumentError as error:
        if error.argument != "held_out_share" or args.do_eval:
            raise
        remedy = f"{str(error).removesuffix('.')}, or --train_val_split 0 trains on all."
        raise ArgumentError(error.argument, remedy) from error


def load(model, names, only_evaluates):
    """Return the model with a head for these classes, and its image processor."""
    if model.model_type:
        processor_name = model.image_processor_name or model.model_name_or_path
        return create_model(model.model_type, processor_name, names, **model.hub)
    if only_evaluates:  # the head that is there: it has to be of these classes, in this order
        of_model = load_class_names(model.config_name or model.model_name_or_path, **model.hub)
        check_same_classes(of_model, names)
    loaded, processor, _ = load_model(
        model.model_name_or_path,
        names,
        config_name=model.config_name,
        processor_name=model.image_processor_name,
        ignore_mismatched_sizes=model.ignore_mismatched_sizes,
        **model.hub,
    )
    return loaded, processor


def main():
    kinds = ModelArguments, DataTrainingArguments, TrainingArguments
    model_args, data_args, args = parse_flags(sys.argv[1:], Path(__file__).name, *kinds)
    if not (args.do_train or args.do_eval):
        raise UserError("Nothing to do: give do_train or do_eval.")
    args.remove_unused_columns = False  # the transforms make the pixels of the image column
    set_seed(args.seed)
    with user_errors("preparing the run"):
        checkpoint = checkpoint_of(args)
        hub = {"cache_dir": model_args.cache_dir, "token": model_args.token}
        train, others = load_images(data_args, args, **hub)
        names = (train or others).features["labels"].names
        model, processor = load(model_args, names, args.do_eval and not args.do_train)
        trainer = Trainer(
            model=model,
            args=args,
            train_dataset=with_images(train, training_rows(processor)) if args.do_train else None,
            eval_dataset=with_images(others, evaluation_rows(processor)) if args.do_eval else None,
            processing_class=processor,
            compute_metrics=compute_accuracies,
        )
    if args.do_train:
        result = trainer.train(resume_from_checkpoint=checkpoint)
        trainer.save_model()
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    if args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    about = {
        "finetuned_from": None if model_args.model_type else model_args.model_name_or_path,
        "tasks": "image-classification",
        "dataset": data_args.dataset_name,
        "tags": ["image-classification", "vision"],
    }
    (trainer.push_to_hub if args.push_to_hub else trainer.create_model_card)(**about)


if __name__ == "__main__":
    with exit_on_error():
        main()
