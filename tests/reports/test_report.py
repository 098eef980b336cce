import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from support.missing_packages import run_without
from support.synthetic import NAMES, color, comparison, image, run

from clce_hf.evaluation.table import Table
from clce_hf.reports import embedding_sections
from clce_hf.reports.gallery import search
from clce_hf.reports.report import write_report
from clce_hf.reports.thumbnails import SIZE

TABLE = Table("Results <i>", ("method", "accuracy"), [("CE & co", "50.0 %"), ("CLCE", "60.0 %")])
EVERYTHING = ["Results <i>", "Accuracy", "Batch size", "Training"]
EVERYTHING += ["Calibration", "Embeddings", "Similarities", "Neighbors"]


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


def write(folder, runs, tables=(TABLE,), names=NAMES, title="a < b"):
    return Page(
        write_report(folder, title=title, tables=tables, runs=runs, class_names=names, image=image)
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


def test_pictures_are_drawn_and_described_in_words(everything):
    page, folder = everything
    for file in folder.glob("*.png"):
        assert np.asarray(Image.open(file).convert("L")).std() > 5, file.name
    alts = [attrs["alt"] for attrs in page.attributes("img")]
    assert len(set(alts)) == len(alts) and all(alts)
    assert "Training loss over the steps, for CE, CLCE" in alts
    names = sorted(file.name for file in folder.glob("*.png"))
    assert names == [
        *("accuracy.png", "batch_size.png", "confusion-1-ce.png", "confusion-2-clce.png"),
        *("curve-ce_loss.png", "curve-eval_loss.png", "curve-loss.png"),
        *("map-1-ce.png", "map-2-clce.png"),
        *("reliability-1-0-ce.png", "reliability-1-1-ce-calibrated.png"),
        *("reliability-2-0-clce.png", "reliability-2-1-clce-calibrated.png"),
        *("similarities-1-ce.png", "similarities-2-clce.png"),
    ]


def test_each_dot_of_a_map_has_its_image_and_its_classes(everything):
    page, _ = everything
    shown = json.loads(page.text_in("script")[0])
    (sheet,) = re.findall(r"url\(data:image/jpeg;base64,([^)]*)\)", page.html)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet)))).astype(int)
    rows, columns = (size // SIZE for size in pixels.shape[:2])
    runs = [made for made in comparison() if (made.seed, made.shots, made.batch_size) == (0, 2, 16)]
    assert [made.method for made in runs] == ["CE", "CLCE"]
    assert len(shown["thumbnails"]) == len(shown["names"]) == 40  # all images, in their order
    for i, place in enumerate(shown["thumbnails"]):
        x, y = (float(part.rstrip("%")) / 100 for part in place.split())
        column, row = round(x * (columns - 1)), round(y * (rows - 1))
        middle = pixels[round((row + 0.5) * SIZE), round((column + 0.5) * SIZE)]
        assert np.abs(middle - color(i)).max() < 20
        assert shown["names"][i] == NAMES[runs[0].predictions.labels[i]]
        for made, of_map in zip(runs, shown["maps"], strict=True):
            assert of_map["predicted"][i] == NAMES[made.predictions.predicted[i]]


def test_neighbors_are_told_in_words(everything):
    page, _ = everything
    gallery = search(comparison()[:2])
    shown = [*gallery.successes, *gallery.failures]
    classes = [label % len(NAMES) for label in range(40)]
    expected = []
    for query in shown:
        expected.append(f"An image of {NAMES[classes[query.image]]}")
        for rows in query.neighbors.values():
            for row in rows:
                kind = "Right" if classes[row] == classes[query.image] else "Wrong"
                expected.append(f"{kind}: an image of {NAMES[classes[row]]}")
    labels = [attrs.get("aria-label") or "" for attrs in page.attributes("span")]
    assert [label for label in labels if "image of" in label] == expected
    marks = "".join(text for text in page.text_in("span") if text in "✓✗")
    assert marks == "".join("✗✓"[e[0] == "R"] for e in expected if e[0] != "A")
    (told,) = (text for text in page.text_in("p") if "nearest others" in text)
    assert "Of 40 images drawn" in told and f", {gallery.num_failures} have most" in told
    lists = [attrs.get("aria-label") for attrs in page.attributes("ol")]
    assert (
        lists.count("Nearest others by CLCE") == lists.count("Nearest others by CE") == len(shown)
    )


def test_names_are_escaped(everything):
    page, _ = everything
    assert page.html.count("<script") == 2 and "alert(1)" in page.html
    assert all(name not in page.html for name in NAMES[1:3])
    assert not page.attributes("i") and "Results <i>" in page.text_in("h2")
    alts = [attrs.get("aria-label") for attrs in page.attributes("span")]
    assert f"{NAMES[2]} taken for {NAMES[3]}" in alts


def test_accuracy_is_that_of_the_first_batch_size(everything):
    page, _ = everything
    values = {k: [0.6 + 0.02 * seed + 0.01 * (k == 5) for seed in range(3)] for k in (2, 5)}
    half = 100 * stats.sem(values[2]) * stats.t.ppf(0.975, 2)
    assert page.attributes("img")[0]["alt"].split("; ") == [
        f"CE, 2 training images per class: 62.0 ± {half:.1f} %",
        f"CLCE, 2 training images per class: 72.0 ± {half:.1f} %",
        f"CE, 5 training images per class: 63.0 ± {half:.1f} %",
        f"CLCE, 5 training images per class: 73.0 ± {half:.1f} %",
    ]
    assert any("interval" in text and "Batch size 16" in text for text in page.text_in("p"))


def test_a_checkpoint_alone_has_what_it_has_data_for(tmp_path):
    page = write(tmp_path, [run()])
    assert page.text_in("h2") == ["Results <i>", "Training", *EVERYTHING[4:], "Mistakes"]


def test_tables_alone_make_a_report(tmp_path):
    page = write(tmp_path, [], [TABLE, replace(TABLE, caption="More")])
    assert page.text_in("h2") == ["Results <i>", "More"]
    assert not page.attributes("script") and not page.attributes("img")


def test_methods_without_an_accuracy_or_a_pair_have_no_such_picture(tmp_path):
    labels = torch.arange(4)
    alone = {"labels": labels, "logits": torch.eye(4), "embeddings": torch.eye(4)}
    runs = [run(m, metrics={}, log_history=[], **alone) for m in ("CE", "CLCE")]
    # Four images: too few for a map, and no two of a class.
    assert write(tmp_path, runs, tables=[]).text_in("h2") == ["Calibration", "Mistakes"]


@pytest.mark.parametrize(
    ("methods", "shown"),
    [(("CE + SupCon", "CLCE", "CE"), ["CE", "CLCE"]), (("CLCE", "b", "c"), ["CLCE", "b"])],
)
def test_two_methods_are_shown_side_by_side(methods, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_sections, "project", lambda embeddings: None)
    write(tmp_path, [run(method, metrics={}, log_history=[]) for method in methods])
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
    page = write(tmp_path, [run(log_history=[], **tensors)], tables=[], names=names)
    headings = ["Calibration", "Embeddings", "Similarities", "Neighbors", "Mistakes"]
    assert page.text_in("h2") == headings
    assert "60 images · 1,000 classes" in page.text_in("p")


def test_a_model_that_a_temperature_does_not_help_is_named(tmp_path):
    generator = torch.Generator().manual_seed(2)
    spread = torch.randn(40, 4, generator=generator)
    labels = spread.softmax(1).multinomial(1, generator=generator)[:, 0]
    runs = [run("CE", logits=spread, labels=labels), run("CLCE", logits=9 * spread, labels=labels)]
    told = " ".join(write(tmp_path, runs, tables=[]).text_in("p"))
    assert "Of CE, that makes the images no likelier: calibrate() would leave" in told


def test_runs_that_do_not_fit_are_refused(tmp_path):
    other = run("CLCE", labels=run().predictions.labels.flip(0))
    with pytest.raises(ValueError, match="CLCE, seed 0, was measured on other images than CE"):
        write(tmp_path, [run(), other])
    broken = run("CLCE", embeddings=torch.full((40, 6), torch.nan))
    with pytest.raises(ValueError, match="CLCE, seed 0, has embeddings that are not finite"):
        write(tmp_path, [run(), broken])
    with pytest.raises(ValueError, match="tells 4 classes apart, but 3 class names"):
        write(tmp_path, [run()], names=NAMES[:3])


@pytest.mark.slow
def test_without_the_extra_the_error_names_it(tmp_path):
    script = (
        "from pathlib import Path; from clce_hf.reports import write_report\n"
        "write_report(Path(sys.argv[1]), title='', tables=[], runs=[], class_names=[], image=None)"
    )
    finished = run_without(["sklearn"], script, str(tmp_path / "report"))
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError") and 'pip install "clce_hf[reports]"' in last
    assert not (tmp_path / "report").exists()
