"""`clce-hf demo`: cross-entropy and CLCE on the digits, from the same weights and batches."""

import tempfile
from collections.abc import Sequence

from accelerate import PartialState

from clce_hf.cli.checks import check_left_out
from clce_hf.cli.errors import user_errors
from clce_hf.cli.parsing import parse
from clce_hf.cli.printing import printing
from clce_hf.cli.train import Outcome, finetune
from clce_hf.evaluation.table import Table


def demo(argv: Sequence[str]) -> None:
    """Train with each of the two losses, and print both results."""
    outcomes = {}
    for name, weight in (("cross-entropy", 0.0), ("CLCE", None)):
        model, data, args = parse(argv)
        with user_errors("preparing the demo"):
            check_left_out(args, "demo trains and evaluates two models, and keeps none")
        args.calibrate = "false"
        if weight is not None:
            args.contrastive_weight = weight
        with tempfile.TemporaryDirectory() as folder:
            args.output_dir = folder
            outcomes[name] = finetune(model, data, args)
    if PartialState().is_main_process:
        with printing():
            print(f"\n{_table(outcomes).as_text()}")


def _table(outcomes: dict[str, Outcome]) -> Table:
    rows = [
        (
            name,
            f"{outcome.metrics['eval_accuracy']:.2%}",
            f"{outcome.metrics['eval_loss']:.4f}",
            f"{outcome.seconds:.1f}",
        )
        for name, outcome in outcomes.items()
    ]
    header = ("loss", "accuracy", "cross-entropy", "seconds")
    return Table("Trained on the digits", header, rows)
