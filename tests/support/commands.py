"""The command line, run in this process on small images for a few steps."""

from clce_hf.cli.main import main

QUICK = ["--max_steps", "2", "--use_cpu", "--disable_tqdm", "true"]
SMALL = ["--per_device_train_batch_size", "8", *QUICK]


def train(folder, checkpoint, output, *flags):
    main(
        [
            "train",
            *("--train_dir", str(folder / "train")),
            *("--validation_dir", str(folder / "validation")),
            *("--model_name_or_path", checkpoint),
            *("--output_dir", str(output)),
            *SMALL,
            *flags,
        ]
    )
