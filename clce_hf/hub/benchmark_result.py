"""A result for the leaderboard of a benchmark on the Hub: a file in `.eval_results`.

The Hub takes it for a task that the data set declares in its `eval.yaml`, and for no other data
set; the `model-index` of the card holds the metrics of any.
"""

from pathlib import Path

import yaml
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, hf_hub_download
from huggingface_hub.utils import httpx

from clce_hf.hub.results import Source


def write_benchmark_result(
    folder: Path, source: Source, accuracy: float, token: str | None = None
) -> Path | None:
    """Write the accuracy on the whole split that a task of the data set is measured on.

    Args:
        folder: that is pushed.
        source: of the data set that the accuracy was measured on.
        accuracy: share of right predictions.
        token: of the Hub; None for the one that is logged in.

    Returns:
        The file, or None if the data set is no benchmark or the Hub cannot be asked.
    """
    task = _task(source, token) if source.is_on_hub and source.is_whole else None
    if task is None:
        return None
    entry = EvalResultEntry(source.name, task, accuracy, dataset_revision=source.revision)
    file = folder / ".eval_results" / f"{source.name.replace('/', '--')}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))
    return file


def _task(source: Source, token: str | None) -> str | None:
    """Name the task on this configuration and split, if there is one."""
    try:
        file = hf_hub_download(
            source.name, "eval.yaml", repo_type="dataset", revision=source.revision, token=token
        )
    except (OSError, httpx.HTTPError):
        return None
    measured = (source.config, source.split)
    for task in yaml.safe_load(Path(file).read_text())["tasks"]:
        if (task.get("config", "default"), task.get("split", "test")) == measured:
            return task["id"]
    return None
