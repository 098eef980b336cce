"""The tables of a comparison, from runs whose numbers are known."""

import pytest
import torch
from scipy.stats import ttest_rel

from clce_hf.comparison.ranking import RANKINGS
from clce_hf.comparison.tables import by_class, check_measured, summaries
from clce_hf.evaluation.record import Predictions, Run
from clce_hf.evaluation.suite import measure

CE, CLCE = [0.5, 0.6, 0.55], [0.7, 0.65, 0.5]


def run(method, seed, accuracy, **setting):
    nothing = Predictions(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    metrics = {
        "accuracy": accuracy,
        "balanced_accuracy": 1 - accuracy,
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
    row, baseline = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    assert baseline["accuracy, %"] == "55.00 ± 5.00"
    assert (baseline["difference to CE"], baseline["wins"]) == ("", "")
    assert row["accuracy, %"].startswith("68.75 ± ")
    assert row["wins"] == "2 of 3"
    low, high = ttest_rel(CLCE, CE).confidence_interval(0.95)
    mean, interval = map(float, row["difference to CE"].split(" ± "))
    assert mean == pytest.approx(100 * (low + high) / 2, abs=0.005) and mean > 0
    assert interval == pytest.approx(100 * (high - low) / 2, abs=0.005)
    others = dict(list(row.items())[4:])
    assert others == {
        "balanced accuracy, %": "31.25",
        "negative log-likelihood": "2.500",
        "calibrated": "0.500",
        "calibration error": "0.250",
        "ms per step": "100",
    }


def test_methods_are_ranked_by_the_metric_that_is_asked_for():
    runs = [run("CE", seed, value) for seed, value in enumerate(CE)]
    runs += [run("CLCE", seed, value) for seed, value in enumerate(CLCE)]
    (table,) = summaries(runs, RANKINGS["balanced_accuracy"])
    assert [row[0] for row in table.rows] == ["CE", "CLCE"]  # the worse accuracy is balanced best
    assert table.header[:5] == (
        "",
        "balanced accuracy, %",
        "difference to CE",
        "wins",
        "accuracy, %",
    )
    row = dict(zip(table.header, table.rows[1], strict=True))
    assert row["balanced accuracy, %"].startswith("38.33 ±")
    assert row["difference to CE"].startswith("-6.67 ±")
    assert (row["wins"], row["accuracy, %"]) == ("1 of 3", "61.67")


def test_of_a_likelihood_less_is_better():
    runs = [run("CLCE", 0, 0.5), run("CE", 1, 0.5), run("CLCE", 1, 0.5), run("CE", 2, 0.5)]
    runs[2].metrics["negative_log_likelihood"] = 1.75  # of 2 at the same seed
    (table,) = summaries(runs, RANKINGS["negative_log_likelihood"])
    assert [row[:4] for row in table.rows] == [
        ["CLCE", "1.375 ± 0.530", "-0.250", "1 of 1"],
        ["CE", "2.500 ± 0.707", "", ""],
    ]


def test_a_difference_that_rounds_to_zero_is_no_loss():
    runs = [run("CE", seed, 0.5) for seed in range(2)]
    runs += [run("CLCE", seed, value) for seed, value in enumerate((0.6, 0.39999))]
    (table,) = summaries(runs)
    assert dict((row[0], row[2]) for row in table.rows)["CLCE"].startswith("+0.00 ± ")


def test_a_metric_that_was_not_measured_is_named_with_those_that_were():
    with pytest.raises(ValueError, match="silhouette was not measured of CE, seed 0: rank by one"):
        check_measured([run("CE", 0, 0.5)], RANKINGS["silhouette"])


def test_whatever_is_measured_ranks_if_it_has_a_better():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(6).repeat(4)
    logits, embeddings = (torch.randn(24, 6, generator=generator) for _ in range(2))
    measured = measure(Predictions(logits, embeddings, labels), shots=()).metrics
    neutral = {"similarity_within", "similarity_between", "iso_score"}
    assert set(RANKINGS) == {*measured, "seconds_per_step"} - neutral


def test_the_accuracy_of_each_class_is_the_mean_over_seeds():
    labels = torch.tensor([0, 0, 1, 1, 1, 1])

    def told(method, seed, predicted):
        logits = torch.eye(3)[torch.tensor(predicted)]
        return Run(method, Predictions(logits, torch.zeros(6, 2), labels), {}, seed=seed)

    runs = [told("CLCE", 0, [0, 0, 2, 2, 2, 2])]
    runs += [told("CE", 0, [0, 0, 1, 2, 2, 2]), told("CE", 1, [0, 1, 1, 1, 2, 0])]
    (table,) = by_class(runs, ["ant", "bee", "cat"])
    assert table.caption == "Accuracy by class, %, trained on all images, batch size None"
    assert table.header == ("", "images", "CLCE", "CE")
    assert table.rows == [["bee", "4", "0.00", "37.50"], ["ant", "2", "100.00", "75.00"]]


def test_each_setting_has_a_table_of_its_own():
    settings = [{"shots": shots, "batch_size": size} for shots in (None, 5) for size in (8, 16)]
    tables = summaries([run("CLCE", 0, 0.5, **setting) for setting in settings])
    assert [table.caption for table in tables] == [
        f"Trained on {images}, batch size {size}"
        for images in ("all images", "5 images per class")
        for size in (8, 16)
    ]
    assert all(table.rows[0][1:4] == ["50.00", "", ""] for table in tables)
