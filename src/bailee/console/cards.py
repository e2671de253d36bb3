"""Lets tables be read on a phone: each row can stand as a card there, each cell with its column's head.

Templates write plain tables. On the finished page each cell is given the head of its column as
`data-label`, which the style sheet puts before it where a screen is narrow. Browsers forget what a table is
once its cells stand one below the other, so each part says what it is (`role`). Nothing that is stored is
taken for a table: it is escaped by then and has no `<`.
"""

import re

# A table of so many columns, numbers but for the first, is narrow enough to stay one.
MOST_COLUMNS = 6

_TABLE = re.compile(r"<table>(.*?)</thead>(.*?)</table>", re.DOTALL)
_HEAD = re.compile(r"<th\b([^>]*)>(.*?)</th>", re.DOTALL)
_BEGINNING = re.compile(r"<(t[rhd])\b([^>]*)>")
_SPAN = re.compile(r'\bcolspan="(\d+)"')
_ROLES = {"td": "cell", "th": "rowheader"}
_TAG = re.compile(r"<[^>]*>")


def make_cards(html: str) -> str:
    """Return a page with the cells of its tables labelled, but for tables that a phone has room for."""
    return _TABLE.sub(_label_table, html)


def _label_table(table: re.Match[str]) -> str:
    heads = _HEAD.findall(table[1])
    if len(heads) <= MOST_COLUMNS and all('class="n"' in attributes for attributes, _ in heads[1:]):
        return table[0]
    top = table[1].replace("<tr>", '<tr role="row">').replace("<th ", '<th role="columnheader" ')
    rows = _label_rows(table[2], [_tell_label(words) for _, words in heads])
    return f'<table class="cards" role="table">{top}</thead>{rows}</table>'


def _tell_label(words: str) -> str:
    """Return a head as an attribute; none for one that is there for readers of the screen alone."""
    return "" if 'class="unseen"' in words else _TAG.sub("", words).replace('"', "&quot;")


def _label_rows(rows: str, labels: list[str]) -> str:
    told = [f' data-label="{words}"' if words else "" for words in labels]
    column = 0

    def label(beginning: re.Match[str]) -> str:
        nonlocal column
        name, attributes = beginning.groups()
        if name == "tr":
            column = 0
            return f'<tr role="row"{attributes}>'
        span = int(found[1]) if "colspan" in attributes and (found := _SPAN.search(attributes)) else 1
        # What goes through all columns is under none of them.
        words = told[column] if column < len(told) and span < len(told) else ""
        column += span
        return f'<{name} role="{_ROLES[name]}"{words}{attributes}>'

    return _BEGINNING.sub(label, rows)
