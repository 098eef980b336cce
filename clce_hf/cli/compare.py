"""`clce-hf compare`: several losses, from the same start and on the same images, over seeds."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, cast

from datasets import Dataset
from torch import Tensor
from transformers import set_seed

from clce_hf.cli.arguments import ModelArguments, TrainArguments
from clce_hf.cli.checks import check_can_write, check_has_top_5, check_left_out
from clce_hf.cli.compare_arguments import CompareArguments
from clce_hf.cli.data_arguments import DataArguments
from clce_hf.cli.errors import before_traceback, user_errors, with_flag
from clce_hf.cli.parsing import read_numbers
from clce_hf.cli.printing import printing
from clce_hf.cli.train import Images, load_images, make_trainer
from clce_hf.comparison.grid import Cell, grid
from clce_hf.comparison.methods import METHODS, Method, read_methods, vary
from clce_hf.comparison.ranking import RANKINGS
from clce_hf.comparison.results import write_results
from clce_hf.comparison.run import is_done, load_runs, run_cells, train_and_measure
from clce_hf.comparison.settings import keep_settings
from clce_hf.comparison.tables import check_measured
from clce_hf.data.labels import read_labels
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.errors import ArgumentError, UserError
from clce_hf.evaluation.record import Run
from clce_hf.evaluation.table import Table
from clce_hf.reports.extra import check_can_draw

_NOT_SHARED = ("output_dir", "seed", "run_name", "token", "hub_token")
"""What runs of one comparison may differ in, and what is secret."""

_WHAT_IT_DOES = "compare trains and measures what is not done yet"


def compare(
    arguments: CompareArguments, model: ModelArguments, data: DataArguments, args: TrainArguments
) -> list[Table] | None:
    """Train every cell that is not done yet; the process that finishes the last writes the results.

    Within a seed, methods see the same images, in the same order where they have the same sampler,
    and start from the same weights.

    Returns:
        The tables, or None while other processes still train.

    Raises:
        UserError: if the images or the model cannot be had, a list cannot be read, the folder holds
            a comparison with other settings, or the report cannot be drawn.
    """
    folder = Path(str(args.output_dir))
    with user_errors("preparing the comparison"):
        check_can_draw()  # before hours of training
        check_left_out(args, _WHAT_IT_DOES)
        cells = _cells(arguments, args)
        check_can_write(args.output_dir)
    _keep_settings(folder, model, data, args)
    data.warn_of_shared_images()
    images = load_images(model, data, args.seed)
    names = images[0].features["labels"].names
    with user_errors("preparing the comparison"):
        check_has_top_5("rank_by", arguments.rank_by, len(names))
    for shots in {cell.shots for cell in cells}:
        _low_shot(images[0], shots, args.seed)

    def train(cell: Cell) -> Run:
        run = _train(cell, model, data, args, images)
        with printing():
            print(f"{cell}: accuracy {run.metrics['accuracy']:.2%}")
        return run

    run_cells(cells, folder / "cells", train)
    if not all(is_done(cell, folder / "cells") for cell in cells):
        return None
    runs = list(load_runs(cells, folder / "cells"))
    ranking = RANKINGS[arguments.rank_by]
    with user_errors("ranking the methods"):
        check_measured(runs, ranking)
    return write_results(folder, runs, names, lambda row: images[1][row]["image"], ranking)


def _cells(arguments: CompareArguments, args: TrainArguments) -> list[Cell]:
    methods = _methods(arguments)
    if not methods or arguments.num_seeds < 1:
        raise ValueError("There is nothing to compare: name at least one method and one seed.")
    weights = read_numbers(arguments.contrastive_weights, "contrastive_weights", float)
    temperatures = read_numbers(arguments.temperatures, "temperatures", float)
    varied = vary(methods, contrastive_weight=weights, temperature=temperatures)
    if (weights or temperatures) and varied == methods:
        raise ValueError(
            "--contrastive_weights and --temperatures are for methods with a contrastive term, and "
            "none of --methods has one: leave them out, or add clce."
        )
    cells = grid(
        varied,
        range(args.seed, args.seed + arguments.num_seeds),
        read_numbers(arguments.shots, "shots", int) or [None],
        read_numbers(arguments.batch_sizes, "batch_sizes", int) or [None],
    )
    for cell in cells:  # refuse a value out of range before hours of training
        _settings(cell, args, str(args.output_dir))
    return cells


def _methods(arguments: CompareArguments) -> list[Method]:
    methods = []
    for name in arguments.methods.split(",") if arguments.methods else []:
        if name.strip() not in METHODS:
            raise ArgumentError("methods", f"got {name}, but there are {', '.join(METHODS)}.")
        methods.append(METHODS[name.strip()])
    if arguments.settings is None:
        return methods
    try:
        return methods + read_methods(Path(arguments.settings), TrainArguments)
    except ValueError as error:
        raise ArgumentError("settings", str(error)) from error


def _settings(cell: Cell, args: TrainArguments, folder: str) -> TrainArguments:
    changed: dict[str, Any] = {"seed": cell.seed, **cell.method.settings}
    if cell.batch_size is not None:
        changed["per_device_train_batch_size"] = cell.batch_size
    try:
        changed_args = dataclasses.replace(args, output_dir=folder, **changed)
        check_left_out(changed_args, _WHAT_IT_DOES)
        return changed_args
    except ValueError as error:
        raise UserError(f"{cell.method.name}: {with_flag(error)}") from error


def _keep_settings(
    folder: Path, model: ModelArguments, data: DataArguments, args: TrainArguments
) -> None:
    try:
        keep_settings(folder, (model, data, args), apart_from=_NOT_SHARED)
    except ValueError as error:
        raise UserError(str(error)) from error


def _low_shot(images: Dataset, shots: int | None, seed: int) -> Dataset:
    if shots is None:
        return images
    try:
        labels, names = cast(Tensor, read_labels(images)), images.features["labels"].names
        return images.select(low_shot_rows(labels, shots, seed, names))
    except ValueError as error:
        raise UserError(f"--shots: {error}") from error


def _train(
    cell: Cell, model: ModelArguments, data: DataArguments, args: TrainArguments, images: Images
) -> Run:
    train = _low_shot(images[0], cell.shots, cell.seed)
    with tempfile.TemporaryDirectory() as folder:
        cell_args = _settings(cell, args, folder)
        set_seed(cell.seed)
        trainer = make_trainer(model, data, cell_args, (train, images[1]))
        with before_traceback(lambda: f"training {cell}, after step {trainer.state.global_step}"):
            return train_and_measure(cell, trainer, cast(Any, trainer.eval_dataset))
