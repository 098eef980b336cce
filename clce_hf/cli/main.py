"""The command line: `clce-hf train`, `evaluate`, `embed`, `compare`, `demo` and `env`.

`python -m clce_hf` is the same program, so that `accelerate launch -m clce_hf train ...` works.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version

from accelerate import PartialState

from clce_hf.cli.compare import compare
from clce_hf.cli.compare_arguments import CompareArguments
from clce_hf.cli.data_arguments import ImagesArguments, LabeledImagesArguments
from clce_hf.cli.demo import demo
from clce_hf.cli.embed import EmbedArguments, embed
from clce_hf.cli.embed import summary as embed_summary
from clce_hf.cli.env import env
from clce_hf.cli.errors import exit_on_error
from clce_hf.cli.evaluate import EvaluateArguments, evaluate
from clce_hf.cli.leave_process_group import leave_process_group
from clce_hf.cli.measurement_tables import tables as evaluation_tables
from clce_hf.cli.parsing import parse, parse_flags, parse_training
from clce_hf.cli.printing import escape_unprintable, printing
from clce_hf.cli.train import finetune, summary
from clce_hf.evaluation.table import Table

USAGE = """usage: clce-hf COMMAND [CONFIG.json|CONFIG.yaml] [--flag value ...]
       clce-hf --version

commands:
  train   fine-tune an image classifier with CLCE; with no data set and no model named, train a
          small ViT on scikit-learn's digits
  evaluate
          measure a checkpoint: accuracy, calibration, few-shot episodes, embedding quality
  embed   write the embedding of each image into a file to search in
  compare
          train with several losses and seeds, and compare them; run it again to resume
  demo    train on the digits with cross-entropy and with CLCE, and compare
  env     print versions, device and settings for a bug report

clce-hf COMMAND --help lists the flags. A config file holds flags by name; flags beside it win.
With no data set named, they use the digits."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` is what follows the program's name."""
    escape_unprintable()
    command, *rest = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    commands = {
        "train": _train,
        "evaluate": _evaluate,
        "embed": _embed,
        "compare": _compare,
        "demo": demo,
        "env": env,
    }
    if command in commands:
        with exit_on_error():
            commands[command](rest)
    elif command in ("-h", "--help"):
        with printing():
            print(USAGE)
    elif command == "--version":
        print(f"clce-hf {version('clce_hf')}")
    else:
        sys.exit(f"{USAGE}\n\nclce-hf: error: there is no command {command!r}")


def _train(argv: Sequence[str]) -> None:
    model, data, args = parse(argv)
    outcome = finetune(model, data, args)
    if PartialState().is_main_process:
        with printing():
            print(summary(args, outcome))
    _end_together()


def _evaluate(argv: Sequence[str]) -> None:
    arguments, data = parse_flags(
        argv, "clce-hf evaluate", EvaluateArguments, LabeledImagesArguments
    )
    evaluation = evaluate(arguments, data)
    if PartialState().is_main_process:
        _print_tables(
            evaluation_tables(evaluation, most_classes=10),
            f"{arguments.output_dir} contains the results.",
        )
    _end_together()


def _embed(argv: Sequence[str]) -> None:
    arguments, data = parse_flags(argv, "clce-hf embed", EmbedArguments, ImagesArguments)
    embedded = embed(arguments, data)
    if PartialState().is_main_process:
        with printing():
            print(embed_summary(arguments, embedded))
    _end_together()


def _end_together() -> None:
    """Wait for all processes: one that ends first would break what the others still hold open."""
    state = PartialState()
    state.wait_for_everyone()
    state.destroy_process_group()


def _compare(argv: Sequence[str]) -> None:
    leave_process_group()
    model, data, args, arguments = parse_training(argv, "compare", CompareArguments)
    tables = compare(arguments, model, data, args)
    if tables is None:
        print("clce-hf: other processes still train; the last one writes the results.")
        return
    files = "results.json, report.html and its pictures"
    _print_tables(tables, f"{args.output_dir} contains the results: {files}.")


def _print_tables(tables: Sequence[Table], last: str) -> None:
    with printing():
        for table in tables:
            print(f"\n{table.as_text()}")
        print(f"\n{last}")
