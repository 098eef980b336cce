"""The command line: `clce-hf train`, `evaluate`, `compare` and `demo`.

`python -m clce_hf` is the same program, so that `accelerate launch -m clce_hf train ...` works.
"""

import contextlib
import difflib
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from accelerate import PartialState
from transformers import HfArgumentParser

from clce_hf.cli.compare import CompareArguments, compare
from clce_hf.cli.evaluate import EvaluateArguments, evaluate
from clce_hf.cli.evaluate import tables as evaluation_tables
from clce_hf.cli.train import Outcome, finetune, is_digits
from clce_hf.cli.work_alone import work_alone
from clce_hf.config import CLCEConfig
from clce_hf.data.data_arguments import DataArguments, LabelledImagesArguments
from clce_hf.data.readable_images import UnreadableImageError
from clce_hf.errors import UserError
from clce_hf.evaluation.table import Table
from clce_hf.models.pretrained import ModelArguments

USAGE = """usage: clce-hf COMMAND [CONFIG.json|CONFIG.yaml] [--flag value ...]
       clce-hf --version

commands:
  train   fine-tune an image classifier with CLCE; with no data set and no model named, train a
          small ViT on scikit-learn's digits
  evaluate
          measure a checkpoint: accuracy, calibration, few-shot episodes, embedding quality
  compare
          train with several losses and seeds, and compare them; runs again to go on
  demo    train on the digits with cross-entropy and with CLCE, and compare

clce-hf COMMAND --help lists the flags. A config file holds flags by name; flags beside it win.
With no data set named, all of them use the digits."""


@dataclass
class TrainArguments(CLCEConfig):
    """`CLCEConfig` with defaults for fine-tuning from the command line."""

    output_dir: str | None = "runs/clce"
    do_train: bool = True
    do_eval: bool = True
    eval_strategy: str = "epoch"
    save_strategy: str = "epoch"
    save_total_limit: int | None = 1
    logging_strategy: str = "epoch"
    # A transform makes the pixels, and needs the columns that the model does not know.
    remove_unused_columns: bool = False
    # Pinning without an accelerator is only warned of.
    dataloader_pin_memory: bool = torch.accelerator.is_available()


@dataclass
class DigitsArguments(TrainArguments):
    """Defaults that train a small ViT from nothing on the digits, in seconds."""

    num_train_epochs: float = 30.0
    per_device_train_batch_size: int = 64
    per_device_eval_batch_size: int = 500
    learning_rate: float = 1e-3
    warmup_steps: float = 0.1
    weight_decay: float = 0.05
    lr_scheduler_type: str = "cosine"
    samples_per_class: int | None = 4
    eval_strategy: str = "no"
    save_strategy: str = "no"
    logging_strategy: str = "no"


Arguments = tuple[ModelArguments, DataArguments, CLCEConfig]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` is what follows the program's name."""
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if command == "train":
        arguments = parse(rest)
        outcome = _run(arguments)
        state = PartialState()
        if state.is_main_process:
            print(_summary(arguments[2], outcome))
        # A process that leaves first would break what the others still hold open.
        state.wait_for_everyone()
        state.destroy_process_group()
    elif command == "evaluate":
        _evaluate(rest)
    elif command == "compare":
        _compare(rest)
    elif command == "demo":
        _demo(rest)
    elif command in ("-h", "--help"):
        print(USAGE)
    elif command == "--version":
        print(f"clce-hf {version('clce_hf')}")
    else:
        sys.exit(f"{USAGE}\n\nclce-hf: error: there is no command {command!r}")


def parse(argv: Sequence[str]) -> Arguments:
    """Turn the flags of `train`, and the config file before them, into arguments.

    Exits with a usage message for an unknown flag or a value out of range.
    """
    return cast(Arguments, tuple(_parse_training(argv, "train")))


def _parse_training(argv: Sequence[str], command: str, *more: Any) -> list[Any]:
    """Arguments of the model, the data, the training, and more; with defaults for the digits."""
    known = (ModelArguments, DataArguments)
    arguments = _parse(argv, command, *known, TrainArguments, *more)
    if is_digits(*arguments[:2]):
        arguments = _parse(argv, command, *known, DigitsArguments, *more)
    return arguments


def _parse(argv: Sequence[str], command: str, *types: Any) -> list[Any]:
    parser = HfArgumentParser(
        types,
        prog=f"clce-hf {command}",
        usage=f"clce-hf {command} [CONFIG.json|CONFIG.yaml] [--flag value ...]; --help lists all",
        allow_abbrev=False,  # a new flag would change what an old abbreviation means
    )
    known = {action.dest for action in parser._actions}
    argv = list(argv)
    if argv and argv[0].endswith((".json", ".yaml", ".yml")):
        settings = _read(Path(argv.pop(0)))
        if unknown := sorted(settings.keys() - known):
            names = ", ".join(unknown)
            parser.error(f"unknown settings in the config file: {names}{_meant(unknown, known)}")
        parser.set_defaults(**settings)
    try:
        *parsed, unknown_flags = parser.parse_args_into_dataclasses(
            argv, return_remaining_strings=True, look_for_args_file=False
        )
    except ValueError as error:
        parser.error(str(error))
    if unknown_flags:
        names = [flag.split("=")[0][2:] for flag in unknown_flags if flag.startswith("--")]
        meant = _meant(names, known)
        parser.error(f"unrecognized arguments: {' '.join(unknown_flags)}{meant}")
    return parsed


def _meant(unknown: Sequence[str], known: Collection[str]) -> str:
    close = [difflib.get_close_matches(name, known, n=1) for name in unknown]
    found = [f"--{name}" for names in close for name in names]
    return f" (did you mean {', '.join(found)}?)" if found else ""


def _read(file: Path) -> dict[str, Any]:
    """Read a JSON or YAML file of settings; JSON is YAML."""
    try:
        settings = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        sys.exit(f"clce-hf: error: the config file cannot be read: {error}")
    if not isinstance(settings, dict):
        sys.exit(f"clce-hf: error: {file.name} holds no settings by name")
    return settings


def _run(arguments: Arguments) -> Outcome:
    with _errors_told():
        return finetune(*arguments)


@contextlib.contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except (UserError, UnreadableImageError) as error:
        sys.exit(f"clce-hf: error: {error}")


def _evaluate(argv: Sequence[str]) -> None:
    arguments, data = _parse(argv, "evaluate", EvaluateArguments, LabelledImagesArguments)
    with _errors_told():
        evaluation = evaluate(arguments, data)
    state = PartialState()
    if state.is_main_process:
        _print_tables(evaluation_tables(evaluation))
        print(f"\n{arguments.output_dir} holds all of it.")
    state.wait_for_everyone()
    state.destroy_process_group()


def _compare(argv: Sequence[str]) -> None:
    work_alone()
    model, data, args, arguments = _parse_training(argv, "compare", CompareArguments)
    with _errors_told():
        tables = compare(arguments, model, data, args)
    if tables is None:
        print("clce-hf: other processes still train; the last one writes the results.")
        return
    _print_tables(tables)
    print(f"\n{args.output_dir} holds all of it: results.json, report.html and its pictures.")


def _print_tables(tables: Sequence[Table]) -> None:
    for table in tables:
        print(f"\n{table.as_text()}")


def _summary(args: CLCEConfig, outcome: Outcome) -> str:
    lines = ["", "CLCE" if args.contrastive_weight > 0 else "Cross-entropy"]
    if "eval_accuracy" in outcome.metrics:
        lines.append(f"  accuracy       {outcome.metrics['eval_accuracy']:.2%}")
        lines.append(f"  cross-entropy  {outcome.metrics['eval_loss']:.4f}")
    if args.do_train:
        lines.append(f"  training time  {outcome.seconds:.1f} s")
        lines.append(f"  model          {args.output_dir}")
        lines.append(
            f'  load it with   pipeline("image-classification", model="{args.output_dir}")'
        )
    return "\n".join(lines)


def _demo(argv: Sequence[str]) -> None:
    """Train twice on the digits, from the same weights and on the same batches."""
    rows = []
    for name, weight in (("cross-entropy", 0.0), ("CLCE", None)):
        model, data, args = parse(argv)
        if not (args.do_train and args.do_eval):
            sys.exit("clce-hf: error: demo trains and evaluates: leave do_train and do_eval out")
        if weight is not None:
            args.contrastive_weight = weight
        with tempfile.TemporaryDirectory() as folder:
            args.output_dir = folder
            outcome = _run((model, data, args))
        rows.append((name, outcome))
    if not PartialState().is_main_process:
        return
    print(f"\n{'loss':14}{'accuracy':>9}{'cross-entropy':>15}{'seconds':>9}")
    for name, outcome in rows:
        metrics = outcome.metrics
        print(
            f"{name:14}{metrics['eval_accuracy']:>9.2%}{metrics['eval_loss']:>15.4f}"
            f"{outcome.seconds:>9.1f}"
        )
