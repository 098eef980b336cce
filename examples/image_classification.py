"""Fine-tune an image classifier: a script to copy and change.

It takes the flags of Transformers' run_image_classification.py and those of CLCEConfig.

    python examples/image_classification.py --model_name_or_path google/vit-base-patch16-224-in21k \
        --train_dir photos/train --validation_dir photos/validation --output_dir runs/photos \
        --do_train --do_eval
"""

from transformers import HfArgumentParser, set_seed

from clce_hf import CLCEConfig, CLCETrainer
from clce_hf.cli.arguments import ModelArguments
from clce_hf.cli.data_arguments import DataArguments
from clce_hf.data import evaluation_rows, mix_training, training_rows, with_images
from clce_hf.evaluation.hf_metrics import compute_accuracy


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, CLCEConfig))
    model_args, data_args, args = parser.parse_args_into_dataclasses()
    args.remove_unused_columns = False  # the transforms make the pixels of the image column
    set_seed(args.seed)

    train, held_out = data_args.load(args.seed, model_args.cache_dir, model_args.token)
    names = train.features["labels"].names
    model, processor, _ = model_args.load(names)
    to_pixels = evaluation_rows(processor)
    augmented = training_rows(processor, data_args.rand_augment)
    train_rows, collator = mix_training(
        augmented if data_args.may_be_augmented else to_pixels,
        len(names),
        data_args.mixup_alpha,
        data_args.cutmix_alpha,
    )
    trainer = CLCETrainer(
        model,
        args,
        data_collator=collator,
        train_dataset=with_images(train, train_rows),
        eval_dataset=with_images(held_out, to_pixels),
        processing_class=processor,
        compute_metrics=compute_accuracy,
    )
    if args.do_train:
        result = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        trainer.save_model()
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
        trainer.save_state()
    if args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    if args.push_to_hub:
        trainer.push_to_hub(dataset_tags=getattr(data_args.source, "name", None))


if __name__ == "__main__":
    main()
