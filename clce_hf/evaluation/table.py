"""A table of measurements, and how it reads on a terminal and in Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table whose entries are texts.

    Attributes:
        caption: above it.
        header: names of the columns.
        rows: entries, each row as long as the header; the first entry names the row.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def as_text(self) -> str:
        """The caption, then the table in columns of equal width, indented."""
        widths = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        lines = [
            "  " + "  ".join(map(str.ljust, row, widths)).rstrip()
            for row in (self.header, *self.rows)
        ]
        return "\n".join([self.caption, *lines])

    def as_markdown(self) -> str:
        """The table without its caption. A bar would end an entry, so it becomes a slash."""
        rows = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(e.replace('|', '/') for e in row)} |" for row in rows)
