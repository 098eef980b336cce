"""A report of one or several trained models: one HTML file that needs nothing else."""

import base64
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from clce_hf.evaluation.record import Predictions, Run
from clce_hf.evaluation.table import Table
from clce_hf.reports.accuracy_bars import describe_shots
from clce_hf.reports.embedding_sections import gallery_section, maps_section, similarities_section
from clce_hf.reports.extra import check_can_draw
from clce_hf.reports.parts import Map, Section
from clce_hf.reports.sections import (
    accuracy_section,
    batch_sizes_section,
    calibration_section,
    confusion_section,
    curves_section,
)
from clce_hf.reports.thumbnails import thumbnail_sheet

REPORT_FILE = "report.html"


def write_report(
    folder: Path,
    *,
    title: str,
    tables: Sequence[Table],
    runs: Sequence[Run],
    class_names: Sequence[str],
    image: Callable[[int], Image.Image],
) -> Path:
    """Write `report.html`, which needs no other file, and each of its pictures as a PNG.

    Args:
        folder: to write into; made if missing.
        title: of the report.
        tables: at its top.
        runs: measured on the same images. Pictures of one setting show the shots and batch size
            of the first run; pictures of two methods show "CE" and "CLCE", or else the first two.
        class_names: by label, as many as the logits have columns, if any.
        image: gives the image of a row of the predictions.

    Returns:
        The file of the report.

    Raises:
        ModuleNotFoundError: without the `reports` extra.
        ValueError: if runs and class names do not fit each other.
    """
    check_can_draw()
    _check(runs, class_names)
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_sections(runs, class_names, folder)) if runs else []
    figures = [figure for part in parts for figure in part.figures]
    sheet = thumbnail_sheet(_shown_images(parts), image)
    maps = [figure for figure in figures if isinstance(figure, Map)]
    page = (
        _environment()
        .get_template(REPORT_FILE)
        .render(
            title=title,
            facts=_facts(runs, class_names),
            tables=tables,
            sections=parts,
            class_names=class_names,
            labels=runs[0].predictions.labels.tolist() if runs else [],
            sheet=sheet,
            maps=_map_data(maps, class_names, sheet.places),
        )
    )
    file = folder / REPORT_FILE
    file.write_text(page, encoding="utf-8")
    return file


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("clce_hf.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment


def _check(runs: Sequence[Run], class_names: Sequence[str]) -> None:
    for run in runs:
        if not run.predictions.labels.equal(runs[0].predictions.labels):
            raise ValueError(
                f"{run.method}, seed {run.seed}, was measured on other images than "
                f"{runs[0].method}, seed {runs[0].seed}: measure all on the same."
            )
        if not run.predictions.embeddings.isfinite().all():
            raise ValueError(
                f"{run.method}, seed {run.seed}, has embeddings that are not finite: leave it out."
            )
        if run.predictions.logits.shape[1] not in (0, len(class_names)):
            raise ValueError(
                f"{run.method}, seed {run.seed}, tells {run.predictions.logits.shape[1]} classes "
                f"apart, but {len(class_names)} class names were given."
            )


def _sections(runs: Sequence[Run], class_names: Sequence[str], folder: Path) -> Iterator[Section]:
    """Draw, into `folder`, what the runs have data for."""
    first = runs[0]
    several_shots = len({run.shots for run in runs}) > 1
    several_sizes = len({run.batch_size for run in runs}) > 1
    same_size = [run for run in runs if run.batch_size == first.batch_size]
    same_shots = [run for run in runs if run.shots == first.shots]
    base = [run for run in same_size if run.shots == first.shots]
    at_size = f" Batch size {first.batch_size}." if several_sizes else ""
    at_shots = f" {describe_shots(first.shots).capitalize()}." if several_shots else ""
    # Of a method that was not trained on the first setting, the first one that it was trained on.
    by_method: dict[str, Run] = {}
    for run in [*base, *runs]:
        by_method.setdefault(run.method, run)

    if len(runs) > 1:
        yield from accuracy_section(same_size, at_size, folder)
    if several_sizes:
        yield from batch_sizes_section(same_shots, at_shots, folder)
    yield from curves_section(base, at_shots + at_size, folder)
    two = _two_methods(by_method)
    setting = "" if len(runs) == 1 else f" Seed\u00a0{two[0].seed}.{at_shots}{at_size}"
    yield from calibration_section(two, setting, folder)
    yield from maps_section(two, setting, class_names, folder)
    yield from similarities_section(list(by_method.values()), setting, folder)
    yield from gallery_section(two, setting)
    yield from confusion_section(two, setting, class_names, folder)


def _two_methods(by_method: dict[str, Run]) -> list[Run]:
    names = ["CE", "CLCE"] if {"CE", "CLCE"} <= by_method.keys() else list(by_method)[:2]
    return [by_method[name] for name in names]


def _facts(runs: Sequence[Run], class_names: Sequence[str]) -> str:
    if not runs:
        return ""
    methods = list(dict.fromkeys(run.method for run in runs))
    seeds = len({run.seed for run in runs})
    facts = [f"{len(runs[0].predictions.labels):,} images", f"{len(class_names):,} classes"]
    if len(runs) > 1:
        facts += [", ".join(methods), f"{seeds} {'seed' if seeds == 1 else 'seeds'}"]
    return " · ".join(facts)


def _shown_images(parts: Sequence[Section]) -> Iterator[int]:
    for figure in (figure for part in parts for figure in part.figures):
        for pair in figure.pairs:
            yield from pair.images
        if isinstance(figure, Map):
            yield from figure.rows
    for query in (query for part in parts for query in part.queries):
        yield query.image
        for rows in query.neighbors.values():
            yield from rows


def _map_data(
    maps: Sequence[Map], class_names: Sequence[str], thumbnails: dict[int, str]
) -> dict[str, Any]:
    """What the script needs: places in percent, and the classes of each image."""
    if not maps:
        return {}
    rows = maps[0].rows  # the same for all
    return {
        "names": [class_names[label] for label in maps[0].run.predictions.labels[rows]],
        "thumbnails": [thumbnails[row] for row in rows],
        "maps": [
            {
                "places": (100 * map.places * (1, -1) + (0, 100)).round(2).tolist(),
                "predicted": _predicted(map.run.predictions, rows, class_names),
            }
            for map in maps
        ],
    }


def _predicted(predictions: Predictions, rows: list[int], class_names: Sequence[str]) -> list[str]:
    if not predictions.knows_classes:
        return []
    return [class_names[label] for label in predictions.predicted[rows]]


def _data_uri(content: bytes | Path, kind: str) -> str:
    content = content.read_bytes() if isinstance(content, Path) else content
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
