"""Tables and facts of a page, read as a visitor reads them: each cell under its head."""

import html
import re
from html.parser import HTMLParser


class _Reader(HTMLParser):
    """Collects rows of cells: text, and over how many columns."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[tuple[str, int]]]] = []
        self._is_in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._is_in_cell = True
            self.tables[-1][-1].append(("", int(dict(attrs).get("colspan") or 1)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._is_in_cell = False

    def handle_data(self, data: str) -> None:
        if self._is_in_cell:
            text, columns = self.tables[-1][-1].pop()
            self.tables[-1][-1].append((text + data, columns))


def read_table(told: str, first: str) -> dict[str, dict[str, str]]:
    """Return the rows of the table whose first head is `first`, by their first cell; each by its heads.

    A cell over several columns stands under each of their heads.
    """
    reader = _Reader()
    reader.feed(told)
    for heads, *rows in reader.tables:
        names = [text for text, _ in heads]
        if names[:1] == [first]:
            cells = [[text.strip() for text, columns in row for _ in range(columns)] for row in rows]
            return {row[0]: dict(zip(names, row, strict=True)) for row in cells}
    raise AssertionError(f"no table begins with {first}")


def read_facts(told: str) -> dict[str, str]:
    """Return what a page says as facts, each under its term."""
    pairs = re.findall(r"<dt>(.*?)</dt>\s*<dd[^>]*>(.*?)</dd>", told, re.DOTALL)
    return {term: html.unescape(re.sub(r"<[^>]+>", "", said)).strip() for term, said in pairs}
