"""How the studies of calibration and of rare classes train."""

from clce_hf import CLCEConfig


def study_config(folder, args, cell):
    """Return the arguments of a run: those of the command line and of the cell's method."""
    return CLCEConfig(
        folder,
        learning_rate=args.lr,
        max_steps=args.steps,
        per_device_train_batch_size=args.batch,
        per_device_eval_batch_size=128,
        warmup_steps=0.1,
        weight_decay=0.05,
        lr_scheduler_type="cosine",
        use_cpu=True,
        seed=cell.seed,
        save_strategy="no",
        disable_tqdm=True,
        **cell.method.settings,
    )
