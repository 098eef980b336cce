"""The settings of a run, as its model card tells them."""

from clce_hf.config import CLCEConfig


def training_settings(args: CLCEConfig, batch_size: int) -> dict[str, str]:
    """Settings that decide what a run comes to, by name.

    Args:
        args: of the run.
        batch_size: images of a device, which `auto_find_batch_size` may have lowered.
    """
    num_processes = args.world_size
    together = batch_size * (num_processes if args.gather_across_devices else 1)
    weight = args.contrastive_weight
    loss = {
        "loss": f"(1 - {weight:g}) cross-entropy + {weight:g} contrastive",
        "temperature (tau)": f"{args.temperature:g}",
        "hard-negative concentration (beta)": f"{args.beta:g}",
        "variant": args.variant,
        "contrasted": "the pooled embedding"
        if args.projection_dim is None
        else f"a projection to {args.projection_dim} dimensions",
        "images contrasted together": str(together),
    }
    steps = args.gradient_accumulation_steps
    processes = "1 process" if num_processes == 1 else f"{num_processes} processes"
    parts = f"{batch_size} per device, {processes}, {steps} accumulated"
    is_capped = args.max_steps > 0
    length = f"{args.max_steps if is_capped else args.num_train_epochs:g}"
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    return {
        **(loss if weight > 0 else {"loss": "cross-entropy"}),
        "sampler": str(args.train_sampling_strategy)
        if args.samples_per_class is None
        else f"{args.samples_per_class} images of a class together",
        "batch size": f"{batch_size * num_processes * steps} ({parts})",
        "steps" if is_capped else "epochs": length,
        "optimizer": str(getattr(args.optim, "value", args.optim)),
        "learning rate": f"{args.learning_rate:g}",
        "schedule": f"{schedule}, warm-up {args.warmup_steps:g}",
        "weight decay": f"{args.weight_decay:g}",
        "layer decay": "none" if args.layer_decay is None else f"{args.layer_decay:g}",
        "label smoothing": f"{args.label_smoothing_factor:g}",
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "seed": str(args.seed),
    }
