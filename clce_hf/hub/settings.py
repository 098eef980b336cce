"""The settings of a run as its model card lists them."""

from transformers import TrainingArguments


def training_settings(args: TrainingArguments, batch_size: int) -> dict[str, str]:
    """Return the settings that decide the outcome of any training run, by name.

    Args:
        args: of the run.
        batch_size: images per device, which `auto_find_batch_size` may have lowered.
    """
    num_processes, steps = args.world_size, args.gradient_accumulation_steps
    processes = "1 process" if num_processes == 1 else f"{num_processes} processes"
    parts = f"{batch_size} per device, {processes}, {steps} accumulated"
    is_capped = args.max_steps > 0
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return {
        "sampler": str(args.train_sampling_strategy),
        "batch size": f"{batch_size * num_processes * steps} ({parts})",
        "steps" if is_capped else "epochs": (
            f"{args.max_steps if is_capped else args.num_train_epochs:g}"
        ),
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "learning rate": f"{args.learning_rate:g}",
        "schedule": f"{schedule}, warm-up {args.warmup_steps:g}",
        "weight decay": f"{args.weight_decay:g}",
        "label smoothing": f"{args.label_smoothing_factor:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "seed": str(args.seed),
    }
