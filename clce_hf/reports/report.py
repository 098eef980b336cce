"""A report of one or several trained models: one HTML file that needs nothing else."""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from clce_hf.evaluation.record import Record
from clce_hf.reports.accuracy_bars import shots_in_words
from clce_hf.reports.report_images import confusion_section, maps_section, similarities_section
from clce_hf.reports.report_parts import Figure, Map, Section
from clce_hf.reports.report_training import accuracy_section, batch_sizes_section, curves_section
from clce_hf.reports.style import check_can_draw
from clce_hf.reports.thumbnails import thumbnail_sheet

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Table:
    """A table, as it is to be read."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_report(
    folder: Path,
    *,
    title: str,
    tables: Sequence[Table],
    records: Sequence[Record],
    class_names: Sequence[str],
    image: Callable[[int], Image.Image],
) -> Path:
    """Write `report.html`, which needs no other file, and each of its pictures as a PNG.

    Args:
        folder: to write into; made if missing.
        title: of the report.
        tables: at its top.
        records: measured on the same images. The settings of the first (shots, batch size) are
            those of pictures that show one setting; "CE" and "CLCE", or else the first two
            methods, are those of pictures that show two.
        class_names: by label, as many as the logits have columns, if any.
        image: gives the image of a row of the records.

    Returns:
        The report.

    Raises:
        ModuleNotFoundError: without the `reports` extra.
        ValueError: if records and class names do not fit each other.
    """
    check_can_draw()
    _check(records, class_names)
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_sections(records, class_names, folder)) if records else []
    figures = [figure for part in parts for figure in part.figures]
    sheet = thumbnail_sheet(_shown_images(figures), image)
    maps = [figure for figure in figures if isinstance(figure, Map)]
    environment = Environment(
        loader=PackageLoader("clce_hf.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    page = environment.get_template(REPORT_FILE).render(
        title=title,
        facts=_facts(records, class_names),
        tables=tables,
        sections=parts,
        class_names=class_names,
        sheet=sheet,
        maps=_map_data(maps, class_names, sheet.places),
    )
    file = folder / REPORT_FILE
    file.write_text(page, encoding="utf-8")
    return file


def _check(records: Sequence[Record], class_names: Sequence[str]) -> None:
    for record in records:
        if not record.labels.equal(records[0].labels):
            raise ValueError(
                f"{record.method}, seed {record.seed}, was measured on other images than "
                f"{records[0].method}, seed {records[0].seed}: measure all on the same."
            )
        if record.logits.shape[1] not in (0, len(class_names)):
            raise ValueError(
                f"{record.method}, seed {record.seed}, tells {record.logits.shape[1]} classes "
                f"apart, but {len(class_names)} class names were given."
            )


def _sections(
    records: Sequence[Record], class_names: Sequence[str], folder: Path
) -> Iterator[Section]:
    """Draw, into `folder`, what the records have data for."""
    first = records[0]
    several_shots = len({record.shots for record in records}) > 1
    several_sizes = len({record.batch_size for record in records}) > 1
    same_size = [record for record in records if record.batch_size == first.batch_size]
    same_shots = [record for record in records if record.shots == first.shots]
    base = [record for record in same_size if record.shots == first.shots]
    at_size = f" Batch size {first.batch_size}." if several_sizes else ""
    at_shots = f" {shots_in_words(first.shots).capitalize()}." if several_shots else ""
    # Of a method that was not trained on the first setting, the first one that it was trained on.
    of_method: dict[str, Record] = {}
    for record in [*base, *records]:
        of_method.setdefault(record.method, record)

    if len(records) > 1:
        yield from accuracy_section(same_size, at_size, folder)
    if several_sizes:
        yield from batch_sizes_section(same_shots, at_shots, folder)
    yield from curves_section(base, at_shots + at_size, folder)
    shown = _two_of(of_method)
    where = "" if len(records) == 1 else f" Seed\u00a0{shown[0].seed}.{at_shots}{at_size}"
    yield from maps_section(shown, where, class_names, folder)
    yield from similarities_section(list(of_method.values()), where, folder)
    yield from confusion_section(shown, where, class_names, folder)


def _two_of(of_method: dict[str, Record]) -> list[Record]:
    names = ["CE", "CLCE"] if {"CE", "CLCE"} <= of_method.keys() else list(of_method)[:2]
    return [of_method[name] for name in names]


def _facts(records: Sequence[Record], class_names: Sequence[str]) -> str:
    if not records:
        return ""
    methods = list(dict.fromkeys(record.method for record in records))
    seeds = len({record.seed for record in records})
    facts = [f"{len(records[0].labels):,} images", f"{len(class_names):,} classes"]
    if len(records) > 1:
        facts += [", ".join(methods), f"{seeds} {'seed' if seeds == 1 else 'seeds'}"]
    return " · ".join(facts)


def _shown_images(figures: Sequence[Figure]) -> Iterator[int]:
    for figure in figures:
        for pair in figure.pairs:
            yield from pair.images
        if isinstance(figure, Map):
            yield from figure.rows


def _map_data(
    maps: Sequence[Map], class_names: Sequence[str], thumbnails: dict[int, str]
) -> dict[str, Any]:
    """What the script needs: places in percent, and what to tell of each image."""
    if not maps:
        return {}
    rows = maps[0].rows  # the same for all
    return {
        "names": [class_names[label] for label in maps[0].record.labels[rows]],
        "thumbnails": [thumbnails[row] for row in rows],
        "maps": [
            {
                "places": (100 * map.places * (1, -1) + (0, 100)).round(2).tolist(),
                "predicted": _predicted(map.record, rows, class_names),
            }
            for map in maps
        ],
    }


def _predicted(record: Record, rows: list[int], class_names: Sequence[str]) -> list[str]:
    if record.logits.shape[1] == 0:
        return []
    return [class_names[label] for label in record.predictions[rows]]


def _data_uri(content: bytes | Path, kind: str) -> str:
    content = content.read_bytes() if isinstance(content, Path) else content
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
