"""What was measured of a checkpoint, in tables."""

from clce_hf.evaluation.suite import Measurements
from clce_hf.evaluation.table import Table


def tables(measured: Measurements, most_classes: int | None = None) -> list[Table]:
    """What was measured and what was left out, to be read by people.

    Args:
        measured: to be shown.
        most_classes: how many of the worst classes to list; None for all.
    """
    metrics = measured.metrics
    rows = [
        (name.replace("_", " "), f"{value:z.4f}" + _plus_minus(metrics, name))
        for name, value in metrics.items()
        if not name.endswith("_interval")
    ]
    shown = [Table("What was measured", ("", "value"), rows)]
    if classes := measured.classes[:most_classes]:
        some = "" if len(classes) == len(measured.classes) else f"{len(classes)} worst of "
        caption = f"Accuracy by class: {some}{len(measured.classes)} classes"
        listed = [(one.name, f"{one.accuracy:.4f}", str(one.images)) for one in classes]
        shown.append(Table(caption, ("", "accuracy", "images"), listed))
    if measured.left_out:
        reasons = [(part.what, part.why) for part in measured.left_out]
        shown.append(Table("What was left out", ("", "why"), reasons))
    return shown


def _plus_minus(metrics: dict[str, float], name: str) -> str:
    interval = metrics.get(f"{name}_interval")
    return "" if interval is None else f" +- {interval:.4f}"
