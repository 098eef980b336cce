"""What single pictures show."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from support.synthetic import color, image, run

from clce_hf.evaluation.calibration import calibration_error, reliability
from clce_hf.evaluation.embeddings import class_similarities
from clce_hf.reports.accuracy_bars import accuracy_bars, plot_accuracy_bars
from clce_hf.reports.confusion import count_confusions, most_confused
from clce_hf.reports.curves import draw_lines, logged
from clce_hf.reports.embedding_map import project
from clce_hf.reports.reliability import describe_reliability, plot_reliability
from clce_hf.reports.similarity_histogram import similarities
from clce_hf.reports.thumbnails import SIZE, thumbnail_sheet


@pytest.mark.parametrize("seeds", [1, 4])
def test_bars_end_at_the_mean_and_have_the_interval_of_student(seeds):
    values = {"CE": [0.5, 0.75, 0.6, 0.55][:seeds], "CLCE": [0.9, 0.8, 0.7, 0.85][:seeds]}
    runs = [run(m, i, accuracy=v) for m, vs in values.items() for i, v in enumerate(vs)]
    axes = Figure().subplots()
    plot_accuracy_bars(axes, accuracy_bars(runs))
    means = [np.mean(vs) for vs in values.values()]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(means)
    points = [part for part in axes.collections if isinstance(part, PathCollection)]
    assert [part.get_offsets()[:, 0].tolist() for part in points] == list(values.values())
    lines = [part for part in axes.collections if isinstance(part, LineCollection)]
    assert len(lines) == (2 if seeds > 1 else 0)
    for line, several in zip(lines, values.values(), strict=False):
        ends = stats.t.interval(0.95, seeds - 1, np.mean(several), stats.sem(several))
        assert line.get_segments()[0][:, 0] == pytest.approx(ends)


def test_long_names_leave_room_for_numbers():
    names = ["CE", "CLCE without hard negatives, temperature 0.1, beta 2", "google/vit-" + "x" * 50]
    settings = itertools.product(names, (0, 1), (5, 10))
    runs = [run(name, i, k, accuracy=0.9 - i / 2) for name, i, k in settings]
    axes = Figure((4, 6), layout="constrained").subplots()
    plot_accuracy_bars(axes, accuracy_bars(runs))
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 2 * (1 + 2 * len(names))
    assert all(axes.figure.bbox.contains(*corner) for box in boxes for corner in box.get_points())
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_lines_of_many_methods_are_drawn(tmp_path):
    lines = {f"a method with a long name, {i}": [[(1, i), (2, i)]] for i in range(24)}
    assert draw_lines(lines, tmp_path / "lines.png", xlabel="step", ylabel="loss")
    lines = {"a": [[(1, 2.0)]], "b": [[]]}
    assert not draw_lines(lines, tmp_path / "none.png", xlabel="step", ylabel="loss")
    assert not (tmp_path / "none.png").exists()


def test_the_last_value_of_a_step_is_the_one_logged():
    history = [{"step": 2, "loss": 3.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}]
    assert logged([*history, {"step": 3, "eval_loss": 1.0}], "loss") == [(1, 4.0), (2, 2.0)]


def test_models_that_differ_by_a_rotation_have_the_same_map():
    embeddings = run().predictions.embeddings
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0]
    wider = torch.nn.functional.pad(3.0 * embeddings @ rotation, (2, 1))
    first, second = project([embeddings, wider])
    assert first.shape == second.shape == (40, 2)
    assert min(first.min(), second.min()) > 0 and max(first.max(), second.max()) < 1
    same = np.linalg.norm(first - second, axis=1).mean()
    others = np.linalg.norm(first[:, None] - second, axis=2).mean()
    assert same < 0.1 * others


def test_few_embeddings_have_no_map():
    assert project([torch.randn(4, 3)]) is None
    assert project([torch.randn(5, 3)])[0].shape == (5, 2)
    assert np.isfinite(project([torch.ones(9, 3), torch.ones(9, 3)])).all()


def test_similarities_are_those_of_a_plain_loop():
    shown = run().predictions
    ours = similarities(shown.embeddings, shown.labels)
    points = torch.nn.functional.normalize(shown.embeddings.double())
    shares = {True: np.zeros(100), False: np.zeros(100)}
    for i in range(len(points)):
        for j in range(i):
            cosine = float(points[i] @ points[j])
            shares[bool(shown.labels[i] == shown.labels[j])][int((cosine + 1) / 0.02)] += 1
    for share, counts in ((ours.within, shares[True]), (ours.between, shares[False])):
        assert share == pytest.approx(counts / counts.sum())


@pytest.mark.parametrize("n", [40, 2500])
def test_means_of_similarities_are_those_that_are_measured(n):
    shown = run(n=n).predictions  # of 2,500 images, the histogram shows a sample
    ours = similarities(shown.embeddings, shown.labels)
    expected = class_similarities(shown.embeddings, shown.labels)
    assert (ours.mean_within, ours.mean_between) == (expected["within"], expected["between"])


def test_mistakes_are_counted_and_shown():
    shown = run(n=64).predictions
    counts = np.zeros((4, 4))
    for label, predicted in zip(shown.labels, shown.predicted, strict=True):
        counts[label, predicted] += 1
    assert np.array_equal(count_confusions(shown), counts)
    logits = shown.logits.clone()
    logits[1] = torch.tensor([0.0, 0, 0, 9])  # a mistake of its own, 1 for 3
    changed = replace(shown, logits=logits)
    pairs = most_confused(changed, num_pairs=3, num_images=2)
    assert [(pair.truth, pair.predicted, pair.count, pair.class_size) for pair in pairs] == [
        (0, 1, 4, 16),
        (2, 3, 4, 16),
        (3, 0, 4, 16),
    ]
    certainty = shown.logits.softmax(1).amax(1)
    mistaken = sorted((0, 16, 32, 48), key=lambda row: -certainty[row])
    assert pairs[0].images == mistaken[:2]
    *_, last = most_confused(changed)
    assert (last.truth, last.predicted, last.images) == (1, 3, [1])


def test_every_image_has_its_place_on_the_sheet():
    numbers = [*range(0, 60, 2), 3]
    sheet = thumbnail_sheet([*numbers, *numbers], image)
    pixels = np.asarray(Image.open(io.BytesIO(sheet.jpeg)).convert("RGB")).astype(int)
    assert pixels.shape == (sheet.rows * SIZE, sheet.columns * SIZE, 3) == (160, 2000, 3)
    for number in numbers:
        x, y = (float(part.rstrip("%")) / 100 for part in sheet.places[number].split())
        column, row = round(x * (sheet.columns - 1)), round(y * (sheet.rows - 1))
        middle = pixels[round((row + 0.5) * SIZE), round((column + 0.5) * SIZE)]
        assert np.abs(middle - color(number)).max() < 20


def test_bars_of_reliability_are_accuracy_and_the_gap_to_confidence():
    shown = run(n=160).predictions
    bins = reliability(shown.logits, shown.labels)
    axes = Figure().subplots()
    plot_reliability(axes, bins)
    accuracy, gaps, shares = axes.containers
    filled = [i for i in range(15) if bins.counts[i] > 0]
    assert [bar.get_x() for bar in accuracy] == pytest.approx([i / 15 for i in filled])
    assert [bar.get_height() for bar in accuracy] == pytest.approx(bins.accuracy[filled].tolist())
    ends = [bar.get_y() + bar.get_height() for bar in gaps]
    assert ends == pytest.approx(bins.confidence[filled].tolist())
    depths = np.array([-bar.get_height() for bar in shares])
    assert depths / depths.sum() == pytest.approx(bins.counts[filled].numpy() / 160)
    assert f"{calibration_error(shown.logits, shown.labels):.3f}" in axes.get_title("left")
    text = describe_reliability(bins, 0.25)
    assert f"error {bins.error:.3f}" in text and "log-likelihood 0.250" in text
    assert text.count("% sure") == len(filled)
