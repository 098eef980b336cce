# /// script
# requires-python = ">=3.11"
# dependencies = ["clce_hf[reports,timm]"]
# ///
"""Fine-tune an image classifier in a job of the Hub, and push it with its card and a report.

    hf jobs uv run --flavor t4-small --timeout 4h --secrets HF_TOKEN -- examples/jobs/finetune.py \
        --dataset USER/IMAGES --model google/vit-base-patch16-224-in21k --repo USER/MODEL

Further flags are those of `clce-hf train`, such as --num_train_epochs 10 --bf16 true.
"""

import argparse
from dataclasses import dataclass

from datasets import Dataset
from huggingface_hub import get_token, upload_folder

from clce_hf.cli.data_arguments import LabeledImagesArguments
from clce_hf.cli.errors import exit_on_error
from clce_hf.cli.evaluate import EvaluateArguments, evaluate
from clce_hf.cli.main import main as clce_hf
from clce_hf.cli.parsing import parse
from clce_hf.cli.train import load_images
from clce_hf.errors import UserError

DEFAULTS = ["--card_pictures", "true", "--disable_tqdm", "true"]
OWN = {"dataset_name", "model_name_or_path", "hub_model_id", "output_dir", "push_to_hub"}
"""Flags of `clce-hf train` that the script sets."""


@dataclass
class HeldOut(LabeledImagesArguments):
    """The images that a training with these flags evaluates on, also where it holds them out."""

    flags: tuple[str, ...] = ()

    def load(self, cache_dir: str | None = None, token: str | None = None) -> Dataset:
        model, data, args = parse(self.flags)
        return load_images(model, data, args.seed)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Further flags are those of clce-hf train.", allow_abbrev=False
    )
    parser.add_argument("--dataset", required=True, help="Data set of images on the Hub.")
    parser.add_argument("--model", required=True, help="Model on the Hub to start from.")
    parser.add_argument("--repo", required=True, help="Where to push to, USER/MODEL.")
    job, further = parser.parse_known_args()
    if job.repo.count("/") != 1:
        parser.error(f"--repo: got {job.repo}, but it takes USER/MODEL.")
    for flag in further:
        if flag.split("=")[0].lstrip("-").replace("-", "_") in OWN:
            parser.error(f"{flag}: the script sets it, from --dataset, --model and --repo.")
    if get_token() is None:
        raise UserError("There is no token of the Hub: start the job with --secrets HF_TOKEN.")
    folder = f"runs/{job.repo.split('/')[1]}"
    flags = ["--dataset_name", job.dataset, "--model_name_or_path", job.model]
    flags += ["--hub_model_id", job.repo, "--push_to_hub", "true", "--output_dir", folder]
    flags += [*DEFAULTS, *further]
    clce_hf(["train", *flags])
    held_out = HeldOut(dataset_name=job.dataset, flags=tuple(flags))
    report = f"{folder}/report"
    evaluate(EvaluateArguments(model_name_or_path=folder, output_dir=report), held_out)
    try:
        upload_folder(repo_id=job.repo, folder_path=report, path_in_repo="report")
    # Of a dropped connection, the client raises the error of the HTTP library that it uses.
    except Exception as error:
        raise UserError(f"The model is pushed, but its report is not: {error}") from error
    print(f"{job.repo} on the Hub has the model, its card and report/report.html.")


if __name__ == "__main__":
    with exit_on_error():
        main()
