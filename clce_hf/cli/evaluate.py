"""`clce-hf evaluate`: all that is measured of a checkpoint on labelled images."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel

from clce_hf.cli.data_arguments import LabeledImagesArguments
from clce_hf.cli.errors import user_errors
from clce_hf.cli.parsing import read_numbers
from clce_hf.data.transforms import evaluation_rows, with_images
from clce_hf.errors import abbreviate
from clce_hf.evaluation.inference import Inference, infer
from clce_hf.evaluation.record import Record
from clce_hf.evaluation.suite import classification_metrics, embedding_metrics, few_shot_metrics
from clce_hf.models.capture import find_classification_layer
from clce_hf.models.class_names import class_names
from clce_hf.models.pretrained import load_checkpoint
from clce_hf.reports.report import Table, write_report

EVALUATION_FILE = "evaluation.json"


@dataclass
class EvaluateArguments:
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
    embedding_module: str | None = field(
        default=None,
        metadata={"help": "Dotted name of the classification layer, where it is not found."},
    )
    report: bool = field(
        default=True, metadata={"help": "Write report.html and its pictures, too."}
    )
    model_revision: str = field(
        default="main", metadata={"help": "Branch, tag or commit of the model."}
    )
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloads are kept."})
    token: str | None = field(
        default=None, metadata={"help": "Hub token; by default that of `hf auth login`."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that the model's repository brings."}
    )


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        metrics: by name; shares in [0, 1].
        left_out: what could not be measured, and why.
    """

    metrics: dict[str, float]
    left_out: list[str]


def evaluate(arguments: EvaluateArguments, data: LabeledImagesArguments) -> Evaluation:
    """Measure a checkpoint, and write `evaluation.json` and, unless told otherwise, the report.

    In several processes the images are shared among them; the first one writes.

    Raises:
        UserError: if the images or the model cannot be had.
    """
    with user_errors():
        shots = read_numbers(arguments.k_shots, "k_shots", int)
        images = data.load(arguments.cache_dir, arguments.token)
        model, processor, missing = load_checkpoint(
            arguments.model_name_or_path,
            cache_dir=arguments.cache_dir,
            revision=arguments.model_revision,
            token=arguments.token,
            trust_remote_code=arguments.trust_remote_code,
        )
        head, _ = find_classification_layer(model, arguments.embedding_module)
    rows: Any = with_images(images, evaluation_rows(processor))
    found = infer(model, rows, arguments.batch_size, arguments.embedding_module)
    names = images.features["labels"].names
    evaluation, labels = Evaluation({}, []), None
    if any(name.startswith(head) for name in missing):
        evaluation.left_out.append("accuracy: the checkpoint has no classification layer")
    else:
        known = class_names(model.config)
        if unknown := [name for name in names if name not in known]:
            evaluation.left_out.append(
                "accuracy: the images have classes that the model does not know: "
                f"{abbreviate(unknown)}; it knows {abbreviate(known)}"
            )
        else:
            labels = torch.tensor([known.index(name) for name in names])[found.labels]
    _measure(evaluation, arguments, found, labels, shots)
    if PartialState().is_main_process:
        _write(evaluation, arguments, found, labels, model, images)
    return evaluation


def _measure(
    evaluation: Evaluation,
    arguments: EvaluateArguments,
    found: Inference,
    labels: Tensor | None,
    shots: list[int],
) -> None:
    if labels is not None:
        evaluation.metrics.update(classification_metrics(found.logits, labels))
    try:
        evaluation.metrics.update(embedding_metrics(found.embeddings, found.labels))
    except ValueError as error:
        evaluation.left_out.append(f"embedding quality: {error}")
    for k_shot in shots:
        try:
            evaluation.metrics.update(
                few_shot_metrics(
                    found.embeddings,
                    found.labels,
                    n_way=arguments.n_way,
                    shots=(k_shot,),
                    num_queries=arguments.num_queries,
                    num_episodes=arguments.num_episodes,
                    seed=arguments.seed,
                )
            )
        except ValueError as error:
            evaluation.left_out.append(f"few-shot: {error}")


def _write(
    evaluation: Evaluation,
    arguments: EvaluateArguments,
    found: Inference,
    labels: Tensor | None,
    model: PreTrainedModel,
    images: Dataset,
) -> None:
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"metrics": evaluation.metrics, "left_out": evaluation.left_out}
    (folder / EVALUATION_FILE).write_text(json.dumps(facts, indent=2) + "\n")
    if not arguments.report:
        return
    is_known = labels is not None
    record = Record(
        method=Path(arguments.model_name_or_path).name,
        seed=arguments.seed,
        shots=None,
        batch_size=arguments.batch_size,
        metrics=evaluation.metrics,
        log_history=[],
        logits=found.logits if is_known else found.logits[:, :0],
        embeddings=found.embeddings,
        labels=labels if labels is not None else found.labels,
    )
    write_report(
        folder,
        title=f"{record.method}: {len(found.labels)} images",
        tables=tables(evaluation),
        records=[record],
        class_names=class_names(model.config) if is_known else images.features["labels"].names,
        image=lambda row: images[row]["image"],
    )


def tables(evaluation: Evaluation) -> list[Table]:
    """What was measured, to be read by people."""
    metrics = evaluation.metrics
    intervals = {name.removesuffix("_interval") for name in metrics if name.endswith("_interval")}
    rows = [
        (name.replace("_", " "), f"{value:.4f}" + _plus_minus(metrics, name, intervals))
        for name, value in metrics.items()
        if not name.endswith("_interval")
    ]
    found = [Table("What was measured", ("", "value"), rows)]
    if evaluation.left_out:
        parts = [reason.split(": ", 1) for reason in evaluation.left_out]
        found.append(Table("What was left out", ("", "why"), parts))
    return found


def _plus_minus(metrics: dict[str, float], name: str, intervals: set[str]) -> str:
    return f" +- {metrics[f'{name}_interval']:.4f}" if name in intervals else ""
