"""The metrics of a run and the data sets they were measured on, as a model card's metadata."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import DatasetInfo
from huggingface_hub import EvalResult

_NOT_MEASURED = ("runtime", "per_second", "model_preparation_time")


@dataclass(frozen=True)
class Source:
    """Where a data set came from.

    Attributes:
        name: its id on the Hub, else the name of its builder or class.
        is_on_hub: whether the name is an id on the Hub.
        config: of the data set on the Hub.
        split: of any data set.
        revision: commit of the data set on the Hub.
    """

    name: str = "unknown"
    is_on_hub: bool = False
    config: str | None = None
    split: str | None = None
    revision: str | None = None


def source_of(dataset: Any) -> Source:
    """Return where a data set came from: the Hub, a folder, or a custom class."""
    info = getattr(dataset, "info", None)
    if not isinstance(info, DatasetInfo):
        return Source() if dataset is None else Source(type(dataset).__name__)
    split = None if dataset.split is None else str(dataset.split)
    # `datasets` records a Hub data set's id nowhere but in the path of its cache files.
    for file in getattr(dataset, "cache_files", ()):  # a stream has none
        *_, name, _, _, revision, _ = ("", "", "", "", *Path(file["filename"]).parts)
        if "___" in name and re.fullmatch(r"[0-9a-f]{40}", revision):
            return Source(name.replace("___", "/"), True, info.config_name, split, revision)
    return Source(info.builder_name or "unknown", split=split)


def is_metric(name: str) -> bool:
    """Whether an entry of the log is a metric that an evaluation measured of the model."""
    return name.startswith("eval_") and not name.endswith(_NOT_MEASURED)


def is_evaluation(entry: dict[str, Any]) -> bool:
    """Whether a line of the log was written by an evaluation."""
    return any(map(is_metric, entry))


def final_metrics(log_history: list[dict[str, Any]], best_step: int | None) -> dict[str, float]:
    """Return the metrics of the model that was kept, without their prefix `eval_`.

    They are those measured after training, else at `best_step`, else last. Values that are not
    finite numbers, such as a confusion matrix, are left out.
    """
    ends = [i for i, entry in enumerate(log_history) if "train_runtime" in entry]
    evaluations = [(i, entry) for i, entry in enumerate(log_history) if is_evaluation(entry)]
    final = [entry for i, entry in evaluations if ends and i > ends[-1]]
    if not final and evaluations:
        step = evaluations[-1][1]["step"] if best_step is None else best_step
        final = [entry for _, entry in evaluations if entry["step"] == step]
    return {
        name.removeprefix("eval_"): value
        for entry in final
        for name, value in entry.items()
        if is_metric(name) and isinstance(value, int | float) and math.isfinite(value)
    }


def sources_by_metric(
    metrics: Mapping[str, float], sources: Mapping[str, Source]
) -> dict[str, Source]:
    """Return where each metric was measured, given data sets by the prefix of their metrics."""
    by_metric = {}
    for metric in metrics:
        prefixes = [prefix for prefix in sources if f"eval_{metric}".startswith(f"{prefix}_")]
        by_metric[metric] = sources[max(prefixes, key=len)] if prefixes else Source()
    return by_metric


def eval_results(
    metrics: Mapping[str, float], sources: Mapping[str, Source], described: Mapping[str, Any]
) -> list[EvalResult]:
    """Return metrics as entries of a `model-index`.

    Args:
        metrics: their values by name.
        sources: their data sets by name.
        described: the user's `type`, `name` and `args` of the data set, all optional.
    """
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Image Classification",
            dataset_type=described.get("type") or sources[name].name,
            dataset_name=described.get("name") or described.get("type") or sources[name].name,
            dataset_config=sources[name].config,
            dataset_split=sources[name].split,
            dataset_revision=sources[name].revision,
            dataset_args=described.get("args"),
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for name, value in metrics.items()
    ]
