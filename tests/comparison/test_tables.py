"""The tables of a comparison, from runs whose numbers are known."""

import pytest
import torch
from scipy.stats import ttest_rel

from clce_hf.comparison.tables import summaries
from clce_hf.evaluation.record import Predictions, Run

CE, CLCE = [0.5, 0.6, 0.55], [0.7, 0.65, 0.5]


def run(method, seed, accuracy, **setting):
    nothing = Predictions(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    metrics = {
        "accuracy": accuracy,
        "negative_log_likelihood": 1.0 + seed,
        "calibrated_negative_log_likelihood": 0.5,
        "calibration_error": 0.25,
        "seconds_per_step": 0.1,
    }
    return Run(method, nothing, metrics, seed=seed, **setting)


def test_a_method_is_compared_with_cross_entropy_at_the_same_seeds():
    runs = [run("CE", seed, value, batch_size=16) for seed, value in enumerate(CE)]
    runs += [run("CLCE", seed, value, batch_size=16) for seed, value in enumerate(CLCE)]
    runs.append(run("CLCE", 3, 0.9, batch_size=16))  # which cross-entropy does not have yet
    (table,) = summaries(runs)
    assert table.caption == "Trained on all images, batch size 16"
    baseline, row = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert baseline["accuracy, %"] == "55.00 ± 5.00"
    assert (baseline["difference to CE"], baseline["wins"]) == ("", "")
    assert row["accuracy, %"].startswith("68.75 ± ")
    assert row["wins"] == "2 of 3"
    low, high = ttest_rel(CLCE, CE).confidence_interval(0.95)
    mean, interval = map(float, row["difference to CE"].split(" ± "))
    assert mean == pytest.approx(100 * (low + high) / 2, abs=0.005) and mean > 0
    assert interval == pytest.approx(100 * (high - low) / 2, abs=0.005)
    numbers = ("negative log-likelihood", "calibrated", "calibration error", "ms per step")
    assert [row[name] for name in numbers] == ["2.500", "0.500", "0.250", "100"]


def test_each_setting_has_a_table_of_its_own():
    settings = [{"shots": shots, "batch_size": size} for shots in (None, 5) for size in (8, 16)]
    tables = summaries([run("CLCE", 0, 0.5, **setting) for setting in settings])
    assert [table.caption for table in tables] == [
        f"Trained on {images}, batch size {size}"
        for images in ("all images", "5 images per class")
        for size in (8, 16)
    ]
    assert all(table.rows[0][1:4] == ["50.00", "", ""] for table in tables)
