"""`clce-hf compare`: several losses, from the same start and on the same images, over seeds."""

import dataclasses
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml
from datasets import Dataset
from filelock import FileLock
from torch import Tensor
from transformers import HfArgumentParser, set_seed

from clce_hf.cli.arguments import ModelArguments
from clce_hf.cli.data_arguments import DataArguments
from clce_hf.cli.parsing import read_numbers
from clce_hf.cli.train import Images, load_images, make_trainer
from clce_hf.comparison.grid import (
    METHODS,
    Cell,
    Method,
    grid,
    is_done,
    load_records,
    run_cells,
    vary,
)
from clce_hf.comparison.run import train_and_measure
from clce_hf.comparison.tables import summaries
from clce_hf.config import CLCEConfig
from clce_hf.data.labels import read_labels
from clce_hf.data.low_shot import low_shot_rows
from clce_hf.errors import UserError
from clce_hf.evaluation.record import Record
from clce_hf.reports.report import Table, write_report

SETTINGS_FILE = "settings.json"
RESULTS_FILE = "results.json"

_OF_THE_GRID = ("output_dir", "seed", "logging_dir", "run_name")
_SECRET = ("token", "hub_token")


@dataclass
class CompareArguments:
    """What to compare. Lists are separated by commas."""

    methods: str = field(
        default="ce,supcon,clce,clce-uniform",
        metadata={"help": f"Of {', '.join(METHODS)}."},
    )
    settings: str | None = field(
        default=None,
        metadata={"help": "YAML or JSON file of more methods: a name, and fields with values."},
    )
    num_seeds: int = field(
        default=5, metadata={"help": "Runs of each method, at seeds from --seed on."}
    )
    shots: str | None = field(
        default=None, metadata={"help": "Numbers of training images of each class; default all."}
    )
    batch_sizes: str | None = field(
        default=None, metadata={"help": "Values of --per_device_train_batch_size."}
    )
    contrastive_weights: str | None = field(
        default=None, metadata={"help": "Values of lambda for each method with a contrast."}
    )
    temperatures: str | None = field(
        default=None, metadata={"help": "Values of tau for each method with a contrast."}
    )


def compare(
    arguments: CompareArguments, model: ModelArguments, data: DataArguments, args: CLCEConfig
) -> list[Table] | None:
    """Train every cell that is not done yet; the process that finds all done writes the results.

    Within a seed, methods see the same images, in the same order where they have the same sampler,
    and start from the same weights.

    Returns:
        What came of it, or None where other processes still train.

    Raises:
        UserError: if the images or the model cannot be had, a list cannot be read, or the
            folder holds a comparison with other settings.
    """
    try:
        cells = _cells(arguments, args)
    except ValueError as error:
        raise UserError(str(error)) from error
    folder = Path(str(args.output_dir))
    _keep_settings(folder, model, data, args)
    images = load_images(model, data, args.seed)
    for shots in {cell.shots for cell in cells}:
        _low_shot(images[0], shots, args.seed)

    def train(cell: Cell) -> Record:
        record = _train(cell, model, data, args, images)
        print(f"{_described(cell)}: accuracy {record.metrics['accuracy']:.2%}", flush=True)
        return record

    run_cells(cells, folder / "cells", train)
    if not all(is_done(cell, folder / "cells") for cell in cells):
        return None
    records = list(load_records(cells, folder / "cells"))
    tables = summaries(records)
    with FileLock(folder / "lock"):
        results = [{**_facts(record), "metrics": record.metrics} for record in records]
        (folder / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n")
        held_out = images[1]
        write_report(
            folder,
            title="Losses compared",
            tables=tables,
            records=records,
            class_names=held_out.features["labels"].names,
            image=lambda row: held_out[row]["image"],
        )
    return tables


def _described(cell: Cell) -> str:
    parts = [cell.method.name, f"seed {cell.seed}"]
    if cell.shots is not None:
        parts.append(f"{cell.shots} images a class")
    if cell.batch_size is not None:
        parts.append(f"batch size {cell.batch_size}")
    return ", ".join(parts)


def _facts(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ("method", "seed", "shots", "batch_size")}


def _cells(arguments: CompareArguments, args: CLCEConfig) -> list[Cell]:
    methods = []
    for name in arguments.methods.split(",") if arguments.methods else []:
        if name.strip() not in METHODS:
            raise ValueError(f"--methods {name}: there are {', '.join(METHODS)}.")
        methods.append(METHODS[name.strip()])
    methods += _methods_of_file(arguments.settings)
    if not methods or arguments.num_seeds < 1:
        raise ValueError("There is nothing to compare: name one method and one seed at least.")
    weights = read_numbers(arguments.contrastive_weights, "contrastive_weights", float)
    temperatures = read_numbers(arguments.temperatures, "temperatures", float)
    varied = vary(methods, contrastive_weight=weights, temperature=temperatures)
    if (weights or temperatures) and varied == methods:
        raise ValueError(
            "--contrastive_weights and --temperatures are of methods with a contrast, and none of "
            "--methods has one: leave them out, or add clce."
        )
    cells = grid(
        varied,
        range(args.seed, args.seed + arguments.num_seeds),
        read_numbers(arguments.shots, "shots", int) or [None],
        read_numbers(arguments.batch_sizes, "batch_sizes", int) or [None],
    )
    for cell in cells:  # a value out of range is to be found before hours of training
        _settings(cell, args, str(args.output_dir))
    return cells


def _settings(cell: Cell, args: CLCEConfig, folder: str) -> CLCEConfig:
    changed: dict[str, Any] = {"seed": cell.seed, **cell.method.settings}
    if cell.batch_size is not None:
        changed["per_device_train_batch_size"] = cell.batch_size
    try:
        return dataclasses.replace(args, output_dir=folder, **changed)
    except ValueError as error:
        raise ValueError(f"{cell.method.name}: {error}") from error


def _methods_of_file(file: str | None) -> list[Method]:
    if file is None:
        return []
    try:
        found = yaml.safe_load(Path(file).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"--settings: the file cannot be read: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise ValueError("--settings: the file holds no methods, each a name with its fields.")
    kinds: dict[str, Any] = {
        action.dest: action.type for action in HfArgumentParser(CLCEConfig)._actions
    }
    methods = []
    for name, fields in found.items():
        if unknown := fields.keys() - kinds.keys():
            raise ValueError(f"--settings: {name} has no field {', '.join(sorted(unknown))}.")
        # YAML takes 1e-5 for a word.
        methods.append(
            Method(
                str(name),
                {
                    field: kinds[field](value) if isinstance(value, str) else value
                    for field, value in fields.items()
                },
            )
        )
    return methods


def _keep_settings(
    folder: Path, model: ModelArguments, data: DataArguments, args: CLCEConfig
) -> None:
    """Refuse to go on with a comparison that was begun with other settings."""
    settings = {
        name: value if isinstance(value, int | float | bool | None) else str(value)
        for part in (model, data, args)
        for name, value in dataclasses.asdict(part).items()
        if name not in (*_OF_THE_GRID, *_SECRET)
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS_FILE
    with FileLock(folder / "lock"):
        if not file.exists():
            file.write_text(json.dumps(settings, indent=2) + "\n")
            return
    before = json.loads(file.read_text())
    changed = [
        f"{name} was {before.get(name)}, now {value}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if changed:
        raise UserError(
            "output_dir holds a comparison with other settings: "
            f"{'; '.join(changed)}. Name another --output_dir, or go on with the same settings."
        )


def _low_shot(images: Dataset, shots: int | None, seed: int) -> Dataset:
    if shots is None:
        return images
    try:
        labels, names = cast(Tensor, read_labels(images)), images.features["labels"].names
        return images.select(low_shot_rows(labels, shots, seed, names))
    except ValueError as error:
        raise UserError(f"--shots: {error}") from error


def _train(
    cell: Cell, model: ModelArguments, data: DataArguments, args: CLCEConfig, images: Images
) -> Record:
    train = _low_shot(images[0], cell.shots, cell.seed)
    with tempfile.TemporaryDirectory() as place:
        own = _settings(cell, args, place)
        set_seed(cell.seed)
        trainer = make_trainer(model, data, own, (train, images[1]))
        return train_and_measure(cell, trainer, cast(Any, trainer.eval_dataset))
