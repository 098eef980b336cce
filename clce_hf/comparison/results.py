"""What a finished comparison writes: every number, and the report with its pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock
from PIL import Image

from clce_hf.comparison.ranking import ACCURACY, Ranking
from clce_hf.comparison.tables import by_class, summaries
from clce_hf.evaluation.record import Run
from clce_hf.evaluation.table import Table
from clce_hf.reports.report import write_report

RESULTS_FILE = "results.json"


def write_results(
    folder: Path,
    runs: Sequence[Run],
    class_names: Sequence[str],
    image: Callable[[int], Image.Image],
    ranking: Ranking = ACCURACY,
) -> list[Table]:
    """Write `results.json`, `report.html` and its pictures.

    Args:
        folder: of the comparison.
        runs: all of them, measured on the same images.
        class_names: by label.
        image: gives the image of a row of the predictions.
        ranking: the metric that methods are ranked by, which all runs have.

    Returns:
        The tables of the methods.

    Raises:
        ModuleNotFoundError: without the `reports` extra.
    """
    tables = summaries(runs, ranking)
    with FileLock(folder / "lock"):  # another process may finish at the same time
        results = [{**run.settings, "metrics": run.metrics} for run in runs]
        text = json.dumps(results, indent=2) + "\n"
        (folder / RESULTS_FILE).write_text(text, encoding="utf-8")
        write_report(
            folder,
            title="Losses compared",
            tables=[*tables, *by_class(runs, class_names)],
            runs=runs,
            class_names=class_names,
            image=image,
        )
    return tables
