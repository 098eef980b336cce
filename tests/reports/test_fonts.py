"""Names in scripts that the font of pictures does not have."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from support.synthetic import image, run

from clce_hf.reports.report import write_report

CATS = "\U000130e0\U000130e1\U000130e2"
"""Hieroglyphs, which fonts for Chinese, Japanese and Korean do not have."""


def font_of(character, file):
    """Write a font of this character alone; its name begins as that of a font for Chinese."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    for corner in [(100, 700), (500, 700), (500, 0)]:
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "square"])
    font.setupCharacterMap({ord(character): "square"})
    font.setupGlyf({".notdef": square, "square": square})
    font.setupHorizontalMetrics({".notdef": (600, 100), "square": (600, 100)})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Noto Sans CJK of a test", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(file)
    return file


@pytest.fixture
def told(tmp_path, caplog):
    """Write a report on classes of these names, and return what was said of fonts so far."""

    def told(*names):
        runs = [run("CE"), run("CLCE")]
        write_report(tmp_path, title="", tables=[], runs=runs, class_names=names, image=image)
        return [r.getMessage() for r in caplog.records if r.name == "clce_hf.reports.fonts"]

    return told


def test_characters_that_no_font_has_are_told_in_one_line(told):
    told(CATS[0], CATS[1], "bee", "cow")
    [line] = told(CATS[0], CATS[1], "bee", "cow")
    assert line.startswith(f"Pictures show boxes for {CATS[0]}, {CATS[1]}: ")
    assert "Install Noto Sans CJK" in line and "\n" not in line


def test_an_installed_font_that_has_the_characters_is_drawn_with(told, tmp_path, monkeypatch):
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    fontManager.addfont(font_of(CATS[2], tmp_path / "font.ttf"))
    assert told(CATS[2], "ant", "bee", "cow") == []
