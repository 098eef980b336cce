"""What was measured in a run, and on which data set, for the metadata of its model card."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

_NOT_MEASURED = ("runtime", "per_second", "model_preparation_time")


@dataclass(frozen=True)
class Source:
    """Where a data set came from.

    Attributes:
        name: its id on the Hub, else that of its builder or class.
        is_on_hub: whether the name is such an id.
        config: of the data set on the Hub.
        split: of any data set.
        revision: commit of the data set on the Hub.
        is_whole: whether it is all of the split.
    """

    name: str = "unknown"
    is_on_hub: bool = False
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    is_whole: bool = False


def source_of(dataset: Any) -> Source:
    """Tell where a data set came from: of the Hub, a folder, or a class of one's own."""
    info = getattr(dataset, "info", None)
    if info is None:
        return Source() if dataset is None else Source(type(dataset).__name__)
    split = None if dataset.split is None else str(dataset.split)
    # A data set of the Hub does not know its name, but the folder that it is kept in has it.
    for kept in getattr(dataset, "cache_files", ()):  # a stream has none
        *_, name, _, _, revision, _ = ("", "", "", "", *Path(kept["filename"]).parts)
        if "___" in name and re.fullmatch(r"[0-9a-f]{40}", revision):
            whole = (info.splits or {}).get(split)
            return Source(
                name.replace("___", "/"),
                True,
                info.config_name,
                split,
                revision,
                whole is not None and whole.num_examples == len(dataset),
            )
    return Source(info.builder_name or "unknown", split=split)


def is_metric(name: str) -> bool:
    """Whether an entry of the log is what an evaluation measured of the model."""
    return name.startswith("eval_") and not name.endswith(_NOT_MEASURED)


def is_evaluation(entry: dict[str, Any]) -> bool:
    """Whether a line of the log is of an evaluation."""
    return any(map(is_metric, entry))


def measured(log_history: list[dict[str, Any]], best_step: int | None) -> dict[str, float]:
    """Numbers measured of the model that is kept, without their prefix `eval_`.

    Those measured after training, else those of `best_step`, else the last. What is no finite
    number, such as a confusion matrix, is left out.
    """
    ends = [i for i, entry in enumerate(log_history) if "train_runtime" in entry]
    evaluations = [(i, entry) for i, entry in enumerate(log_history) if is_evaluation(entry)]
    after = [entry for i, entry in evaluations if ends and i > ends[-1]]
    if not after and evaluations:
        step = evaluations[-1][1]["step"] if best_step is None else best_step
        after = [entry for _, entry in evaluations if entry["step"] == step]
    return {
        name.removeprefix("eval_"): value
        for entry in after
        for name, value in entry.items()
        if is_metric(name) and isinstance(value, int | float) and math.isfinite(value)
    }


def sources_by_metric(
    metrics: Mapping[str, float], datasets: Mapping[str, Any]
) -> dict[str, Source]:
    """Where each metric was measured, given the data sets by the prefix that their metrics had."""
    sources = {prefix: source_of(dataset) for prefix, dataset in datasets.items()}
    found = {}
    for metric in metrics:
        fitting = [prefix for prefix in sources if f"eval_{metric}".startswith(f"{prefix}_")]
        found[metric] = sources[max(fitting, key=len)] if fitting else Source()
    return found


def eval_results(
    metrics: Mapping[str, float], sources: Mapping[str, Source], given: Mapping[str, Any]
) -> list[EvalResult]:
    """Write metrics as entries of a `model-index`.

    Args:
        metrics: their values by name.
        sources: their data sets by name.
        given: what the user said of the data set: `type`, `name` and `args`, all optional.
    """
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Image Classification",
            dataset_type=given.get("type") or sources[name].name,
            dataset_name=given.get("name") or given.get("type") or sources[name].name,
            dataset_config=sources[name].config,
            dataset_split=sources[name].split,
            dataset_revision=sources[name].revision,
            dataset_args=given.get("args"),
            metric_type=name,
            metric_name=name,
            metric_value=value,
        )
        for name, value in metrics.items()
    ]
