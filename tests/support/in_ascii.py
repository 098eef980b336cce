"""Commands one after the other, in a process whose locale and output are ASCII; then a long one.

Run as `python in_ascii.py FOLDER`, with a model and a data set in the folder.
"""

import signal
import sys
from pathlib import Path

from clce_hf.cli.main import main

if __name__ == "__main__":
    # A shell has what it runs in the background ignore the interruption.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(sys.argv[1])
    images = ["--dataset_name", str(folder / "data")]
    model = ["--model_name_or_path", str(folder / "model")]
    quick = ["--max_steps", "2", "--use_cpu", "--per_device_train_batch_size", "8"]
    config = str(folder / "run.yaml")

    main(["train", config, *images, *model, *quick, "--output_dir", str(folder / "run")])
    few = [
        "--report",
        "false",
        "--n_way",
        "2",
        "--num_queries",
        "2",
        "--k_shots",
        "1",
        "--num_episodes",
        "2",
    ]
    main(["evaluate", *images, *model, *few, "--output_dir", str(folder / "measured")])
    methods = ["--methods", "", "--settings", str(folder / "methods.yaml"), "--num_seeds", "1"]
    compared = ["--output_dir", str(folder / "compared")]
    main(["compare", config, *images, *model, *quick, *methods, *compared])

    long = ["--max_steps", "100000", "--save_strategy", "steps", "--save_steps", "5"]
    main(["train", *images, *model, *quick, *long, "--output_dir", str(folder / "long")])
