import base64
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats
from sklearn.metrics import confusion_matrix as confusion_matrix_of_sklearn
from support.synthetic import NAMES, colour, comparison, image, record

from clce_hf.evaluation.embeddings import class_similarities
from clce_hf.reports import report_images, style
from clce_hf.reports.accuracy_bars import accuracy_bars, plot_accuracy_bars
from clce_hf.reports.confusion import confusion_matrix, most_confused
from clce_hf.reports.embedding_map import project
from clce_hf.reports.report import Table, write_report
from clce_hf.reports.similarity_histogram import similarities
from clce_hf.reports.style import draw_lines, logged
from clce_hf.reports.thumbnails import SIZE, thumbnail_sheet

TABLE = Table("Results <i>", ("method", "accuracy"), [("CE & co", "50.0 %"), ("CLCE", "60.0 %")])
EVERYTHING = ["Results <i>", "Accuracy", "Batch size", "Training", "Embeddings", "Similarities"]


class Page(HTMLParser):
    """What a browser would make of the tags: their attributes, and the text in each."""

    def __init__(self, file):
        super().__init__()
        self.html = file.read_text(encoding="utf-8")
        self.tags, self.texts, self._open = [], [], ""
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self._open = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self._open, data.strip()))

    def text_in(self, tag):
        return [text for name, text in self.texts if name == tag]

    def attributes(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def write(folder, records, tables=(TABLE,), names=NAMES, title="a < b"):
    return Page(
        write_report(
            folder, title=title, tables=tables, records=records, class_names=names, image=image
        )
    )


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write(folder, comparison()), folder


def test_a_comparison_has_every_section(everything):
    page, _ = everything
    assert page.text_in("h2") == [*EVERYTHING, "Mistakes"]
    assert page.text_in("title") == ["a < b"] and page.text_in("h1") == ["a < b"]
    assert page.text_in("td") == ["50.0 %", "60.0 %"]
    assert "40 images · 4 classes · CE, CLCE · 3 seeds" in page.text_in("p")


def test_the_file_needs_no_other(everything):
    page, folder = everything
    sources = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    sources += re.findall(r"url\(([^)]*)\)", page.html)
    assert len(sources) > 10 and all(source.startswith("data:") for source in sources)
    assert not re.search(r"https?:|//\w+\.|@import|fetch\(|XMLHttp", page.html)
    embedded = {
        base64.b64decode(attrs["src"].removeprefix("data:image/png;base64,"))
        for attrs in page.attributes("img")
    }
    assert embedded == {file.read_bytes() for file in folder.glob("*.png")}
    assert len(embedded) == len(page.attributes("img"))
    assert page.html.count("data:image/jpeg") == 1  # the thumbnails, once


def test_pictures_are_drawn_and_told_in_words(everything):
    page, folder = everything
    for file in folder.glob("*.png"):
        assert np.asarray(Image.open(file).convert("L")).std() > 5, file.name
    told = [attrs["alt"] for attrs in page.attributes("img")]
    assert len(set(told)) == len(told) and all(told)
    assert "Training loss over the steps, for CE, CLCE" in told
    names = sorted(file.name for file in folder.glob("*.png"))
    assert names == [
        *("accuracy.png", "batch_size.png", "confusion-1-ce.png", "confusion-2-clce.png"),
        *("curve-ce_loss.png", "curve-eval_loss.png", "curve-loss.png"),
        *("map-1-ce.png", "map-2-clce.png", "similarities-1-ce.png", "similarities-2-clce.png"),
    ]


def test_names_are_escaped(everything):
    page, _ = everything
    assert page.html.count("<script") == 2 and "alert(1)" in page.html
    assert all(name not in page.html for name in NAMES[1:3])
    assert not page.attributes("i") and "Results <i>" in page.text_in("h2")
    told = [attrs.get("aria-label") for attrs in page.attributes("span")]
    assert f"{NAMES[2]} taken for {NAMES[3]}" in told


def test_accuracy_is_that_of_the_first_batch_size(everything):
    page, _ = everything
    values = {k: [0.6 + 0.02 * seed + 0.01 * (k == 5) for seed in range(3)] for k in (2, 5)}
    half = 100 * stats.sem(values[2]) * stats.t.ppf(0.975, 2)
    assert page.attributes("img")[0]["alt"].split("; ") == [
        f"CE, 2 training images a class: 62.0 ± {half:.1f} %",
        f"CLCE, 2 training images a class: 72.0 ± {half:.1f} %",
        f"CE, 5 training images a class: 63.0 ± {half:.1f} %",
        f"CLCE, 5 training images a class: 73.0 ± {half:.1f} %",
    ]
    assert any("interval" in text and "Batch size 16" in text for text in page.text_in("p"))


@pytest.mark.parametrize("seeds", [1, 4])
def test_bars_end_at_the_mean_and_have_the_interval_of_student(seeds):
    values = {"CE": [0.5, 0.75, 0.6, 0.55][:seeds], "CLCE": [0.9, 0.8, 0.7, 0.85][:seeds]}
    records = [record(m, i, accuracy=v) for m, vs in values.items() for i, v in enumerate(vs)]
    axes = Figure().subplots()
    plot_accuracy_bars(axes, accuracy_bars(records))
    means = [np.mean(vs) for vs in values.values()]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(means)
    points = [some for some in axes.collections if isinstance(some, PathCollection)]
    assert [some.get_offsets()[:, 0].tolist() for some in points] == list(values.values())
    lines = [some for some in axes.collections if isinstance(some, LineCollection)]
    assert len(lines) == (2 if seeds > 1 else 0)
    for line, several in zip(lines, values.values(), strict=False):
        ends = stats.t.interval(0.95, seeds - 1, np.mean(several), stats.sem(several))
        assert line.get_segments()[0][:, 0] == pytest.approx(ends)


def test_long_names_leave_room_for_numbers():
    names = ["CE", "CLCE without hard negatives, temperature 0.1, beta 2", "google/vit-" + "x" * 50]
    settings = itertools.product(names, (0, 1), (5, 10))
    records = [record(name, i, k, accuracy=0.9 - i / 2) for name, i, k in settings]
    axes = Figure((4, 6), layout="constrained").subplots()
    plot_accuracy_bars(axes, accuracy_bars(records))
    axes.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 2 * (1 + 2 * len(names))
    assert all(axes.figure.bbox.contains(*corner) for box in boxes for corner in box.get_points())
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_a_checkpoint_alone_has_what_it_has_data_for(tmp_path):
    page = write(tmp_path, [record()])
    assert page.text_in("h2") == ["Results <i>", "Training", *EVERYTHING[4:], "Mistakes"]


def test_tables_alone_make_a_report(tmp_path):
    page = write(tmp_path, [], [TABLE, replace(TABLE, caption="More")])
    assert page.text_in("h2") == ["Results <i>", "More"]
    assert not page.attributes("script") and not page.attributes("img")


def test_methods_without_an_accuracy_or_a_pair_have_no_such_picture(tmp_path):
    labels = torch.arange(4)
    alone = {"labels": labels, "logits": torch.eye(4), "embeddings": torch.eye(4)}
    records = [record(m, metrics={}, log_history=[], **alone) for m in ("CE", "CLCE")]
    # Four images: too few for a map, and no two of a class.
    assert write(tmp_path, records, tables=[]).text_in("h2") == ["Mistakes"]


@pytest.mark.parametrize(
    ("methods", "shown"),
    [(("CE + SupCon", "CLCE", "CE"), ["CE", "CLCE"]), (("CLCE", "b", "c"), ["CLCE", "b"])],
)
def test_two_methods_are_shown_side_by_side(methods, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(report_images, "project", lambda embeddings: None)
    write(tmp_path, [record(method, metrics={}, log_history=[]) for method in methods])
    files = sorted(file.name for file in tmp_path.glob("confusion-*.png"))
    assert files == [f"confusion-{i}-{name.lower()}.png" for i, name in enumerate(shown, start=1)]


def test_a_thousand_classes_do_not_break(tmp_path):
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "labels": torch.arange(60) * 16 + torch.arange(60) % 2 * 16,
        "logits": torch.randn(60, 1000, generator=generator),
        "embeddings": torch.randn(60, 8, generator=generator),
    }
    names = [f"class {i}" for i in range(1000)]
    page = write(tmp_path, [record(log_history=[], **tensors)], tables=[], names=names)
    assert page.text_in("h2") == ["Embeddings", "Similarities", "Mistakes"]
    assert "60 images · 1,000 classes" in page.text_in("p")


def test_lines_of_many_methods_are_drawn(tmp_path):
    lines = {f"a method with a long name, {i}": [[(1, i), (2, i)]] for i in range(24)}
    assert draw_lines(lines, tmp_path / "lines.png", xlabel="step", ylabel="loss")
    lines = {"a": [[(1, 2.0)]], "b": [[]]}
    assert not draw_lines(lines, tmp_path / "none.png", xlabel="step", ylabel="loss")
    assert not (tmp_path / "none.png").exists()


def test_the_last_value_of_a_step_is_the_one_logged():
    history = [{"step": 2, "loss": 3.0}, {"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}]
    assert logged([*history, {"step": 3, "eval_loss": 1.0}], "loss") == [(1, 4.0), (2, 2.0)]


def test_records_that_do_not_fit_are_refused(tmp_path):
    other = record("CLCE", labels=record().labels.flip(0))
    with pytest.raises(ValueError, match="CLCE, seed 0, was measured on other images than CE"):
        write(tmp_path, [record(), other])
    with pytest.raises(ValueError, match="tells 4 classes apart, but 3 class names"):
        write(tmp_path, [record()], names=NAMES[:3])


def test_without_the_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "is_matplotlib_available", lambda: False)
    with pytest.raises(ModuleNotFoundError, match=re.escape('pip install "clce_hf[reports]"')):
        write(tmp_path, [])
    assert not list(tmp_path.iterdir())


def test_models_that_differ_by_a_rotation_have_the_same_map():
    embeddings = record().embeddings
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
    some = record()
    found = similarities(some.embeddings, some.labels)
    points = torch.nn.functional.normalize(some.embeddings.double())
    shares = {True: np.zeros(100), False: np.zeros(100)}
    for i in range(len(points)):
        for j in range(i):
            cosine = float(points[i] @ points[j])
            shares[bool(some.labels[i] == some.labels[j])][int((cosine + 1) / 0.02)] += 1
    for share, counts in ((found.within, shares[True]), (found.between, shares[False])):
        assert share == pytest.approx(counts / counts.sum())
    expected = class_similarities(some.embeddings, some.labels)
    assert found.mean_within == pytest.approx(expected["within"], abs=1e-5)
    assert found.mean_between == pytest.approx(expected["between"], abs=1e-5)


def test_mistakes_are_counted_and_shown():
    some = record(n=64)
    matrix = confusion_matrix(some.labels, some.predictions, 4)
    assert np.array_equal(matrix, confusion_matrix_of_sklearn(some.labels, some.predictions))
    logits = some.logits.clone()
    logits[1] = torch.tensor([0.0, 0, 0, 9])  # a mistake of its own, 1 for 3
    pairs = most_confused(logits, some.labels, num_pairs=3, num_images=2)
    assert [(pair.truth, pair.predicted, pair.count, pair.of) for pair in pairs] == [
        (0, 1, 4, 16),
        (2, 3, 4, 16),
        (3, 0, 4, 16),
    ]
    certainty = some.logits.softmax(1).amax(1)
    mistaken = sorted((0, 16, 32, 48), key=lambda row: -certainty[row])
    assert pairs[0].images == mistaken[:2]
    *_, last = most_confused(logits, some.labels)
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
        assert np.abs(middle - colour(number)).max() < 20
