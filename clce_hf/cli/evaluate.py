"""`clce-hf evaluate`: everything that is measured of a checkpoint on labeled images."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from clce_hf.cli.arguments import HubArguments
from clce_hf.cli.checks import check_can_write
from clce_hf.cli.data_arguments import LabeledImagesArguments
from clce_hf.cli.errors import before_traceback, user_errors
from clce_hf.cli.measurement_tables import tables
from clce_hf.cli.parsing import read_numbers
from clce_hf.cli.ranges import COUNT, PAIR, check_ranges
from clce_hf.data.transforms import evaluation_rows, with_images
from clce_hf.errors import UserError, abbreviate
from clce_hf.evaluation.by_class import accuracy_by_class
from clce_hf.evaluation.finite import check_finite
from clce_hf.evaluation.inference import infer
from clce_hf.evaluation.record import Predictions, Run
from clce_hf.evaluation.suite import LeftOut, Measurements, measure
from clce_hf.models.class_names import class_names
from clce_hf.models.classification_layer import find_classification_layer
from clce_hf.models.pretrained import load_checkpoint
from clce_hf.reports.extra import check_can_draw
from clce_hf.reports.report import write_report

EVALUATION_FILE = "evaluation.json"


@dataclass
class EvaluateArguments(HubArguments):
    """Which checkpoint to evaluate, and how."""

    model_name_or_path: str = field(
        default="runs/clce", metadata={"help": "Model on the Hub, or a folder with a checkpoint."}
    )
    output_dir: str = field(
        default="runs/evaluation", metadata={"help": "Where the JSON file and the report go."}
    )
    n_way: int = field(default=5, metadata={"help": "Classes in a few-shot episode."})
    k_shots: str = field(
        default="1,5", metadata={"help": "Images of each class that an episode learns from."}
    )
    num_queries: int = field(
        default=15, metadata={"help": "Images of each class that an episode classifies."}
    )
    num_episodes: int = field(default=1000, metadata={"help": "Few-shot episodes."})
    batch_size: int = field(default=64, metadata={"help": "Images to forward at a time."})
    seed: int = field(default=42, metadata={"help": "Decides the episodes."})
    classification_layer: str | None = field(
        default=None,
        metadata={"help": "Dotted name of the classification layer, where it is not found."},
    )
    report: bool = field(
        default=True, metadata={"help": "Write report.html and its pictures, too."}
    )

    def __post_init__(self) -> None:
        counts = dict.fromkeys(("num_queries", "num_episodes", "batch_size"), COUNT)
        check_ranges(self, {"n_way": PAIR, **counts})


def evaluate(arguments: EvaluateArguments, data: LabeledImagesArguments) -> Measurements:
    """Measure a checkpoint, and write `evaluation.json` and, unless told otherwise, the report.

    Several processes share the images; the first one writes.

    Raises:
        UserError: if the images or the model cannot be had, or the report cannot be drawn.
    """
    with user_errors("preparing the evaluation"):
        if arguments.report:
            _check_report()
        shots = read_numbers(arguments.k_shots, "k_shots", int)
        check_can_write(arguments.output_dir)
    with user_errors(f"loading the images of {data.in_words}"):
        images = data.load(arguments.cache_dir, arguments.token)
    with user_errors(f"loading the model {arguments.model_name_or_path}"):
        model, processor, missing = load_checkpoint(arguments.model_name_or_path, **arguments.hub)
        head, _ = find_classification_layer(model, arguments.classification_layer)
    has_head = not any(name.startswith(head) for name in missing)
    rows: Any = with_images(images, evaluation_rows(processor))
    with before_traceback(lambda: f"measuring the model on the images of {data.in_words}"):
        predictions = infer(model, rows, arguments.batch_size, arguments.classification_layer)
        try:
            check_finite(predictions, model)
        except ValueError as error:
            raise UserError(
                f"--model_name_or_path {arguments.model_name_or_path}: {error}"
            ) from error
        predictions, names, left_out = _match_classes(
            predictions,
            images.features["labels"].names,
            class_names(model.config) if has_head else None,
        )
        measured = measure(
            predictions,
            n_way=arguments.n_way,
            shots=shots,
            num_queries=arguments.num_queries,
            num_episodes=arguments.num_episodes,
            seed=arguments.seed,
        )
    classes = ()
    if predictions.knows_classes:
        classes = accuracy_by_class(predictions.predicted, predictions.labels, names)
    left_out = (*left_out, *measured.left_out)
    measured = replace(measured, left_out=left_out, classes=classes)
    if PartialState().is_main_process:
        with before_traceback(lambda: f"writing the results into {arguments.output_dir}"):
            _write(arguments, measured, predictions, names, images)
    return measured


def _check_report() -> None:
    try:
        check_can_draw()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error} Or leave the report out: --report false.") from error


def _match_classes(
    predictions: Predictions, names: list[str], known: list[str] | None
) -> tuple[Predictions, list[str], Sequence[LeftOut]]:
    """Put the logits into the order of the images' classes, which the model is to know by name.

    Args:
        predictions: with logits in the order of the model.
        names: classes of the images, by label.
        known: classes of the model; None where it has no classification layer.

    Returns:
        The predictions, the names of their classes, and what cannot be measured. Classes that the
        model alone has come last; where it does not know all the others, there are no logits.
    """
    if known is None:
        why = "the checkpoint has no classification layer"
    elif unknown := [name for name in names if name not in known]:
        why = (
            "the images have classes that the model does not know: "
            f"{abbreviate(unknown)}; it knows {abbreviate(known)}"
        )
    else:
        columns = [known.index(name) for name in names]
        columns += [i for i in range(len(known)) if i not in columns]
        ordered = replace(predictions, logits=predictions.logits[:, columns])
        return ordered, [known[i] for i in columns], ()
    unclassified = replace(predictions, logits=predictions.logits[:, :0])
    return unclassified, names, [LeftOut("accuracy", why)]


def _write(
    arguments: EvaluateArguments,
    measured: Measurements,
    predictions: Predictions,
    names: list[str],
    images: Dataset,
) -> None:
    folder = Path(arguments.output_dir)
    text = json.dumps(asdict(measured), indent=2) + "\n"
    (folder / EVALUATION_FILE).write_text(text, encoding="utf-8")
    if not arguments.report:
        return
    run = Run(Path(arguments.model_name_or_path).name, predictions, measured.metrics)
    write_report(
        folder,
        title=f"{run.method}: {len(predictions.labels)} images",
        tables=tables(measured),
        runs=[run],
        class_names=names,
        image=lambda row: images[row]["image"],
    )
