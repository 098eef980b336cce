"""Fonts for names in any script, and one line where none has a character."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from clce_hf.errors import abbreviate

logger = logging.getLogger(__name__)

_CJK = (
    *("Noto Sans CJK", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans"),
    *("WenQuanYi", "IPAGothic", "NanumGothic", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),  # of Windows
    *("PingFang", "Hiragino Sans", "Apple SD Gothic Neo"),  # of macOS
)
"""What the names of fonts begin with that have Chinese, Japanese or Korean."""

_MISSING = r"Glyph (\d+) .* missing from font"
"""How a warning of Matplotlib begins."""


def families() -> list[str]:
    """Return the fonts to draw with: that of the settings, then those that have what it lacks.

    Matplotlib takes each character from the first font that has it, but knows no such font by
    itself, and warns of any that is not installed.
    """
    from matplotlib import rcParams
    from matplotlib.font_manager import get_font_names

    return [
        *rcParams["font.family"],
        *sorted(name for name in get_font_names() if name.startswith(_CJK)),
    ]


@contextmanager
def missing_glyphs_told() -> Iterator[None]:
    """Log what characters no font has, once, in place of Matplotlib's warning of each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", _MISSING)
        yield
    missing = []
    for one in caught:
        if found := re.match(_MISSING, str(one.message)):
            missing.append(chr(int(found[1])))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if missing:
        _tell(abbreviate(list(dict.fromkeys(missing)), 5))


@cache
def _tell(characters: str) -> None:
    logger.warning(
        "Pictures show boxes for %s: none of their fonts has them. Install Noto Sans CJK for "
        "Chinese, Japanese and Korean, or set font.family in a matplotlibrc to a font that has "
        "them; then delete fontlist-*.json, Matplotlib's list of fonts, in the folder that "
        "matplotlib.get_cachedir() names.",
        characters,
    )
