"""Cells learn the heads of their columns, and nothing that is stored is taken for a table."""

from pathlib import Path

from bailee.console.cards import make_cards
from bailee.console.rendering import Renderer
from bailee.pages import Page

HEADS = '<th scope="col">Name</th><th scope="col" class="n">Sent</th><th scope="col">Goes</th>'
DO = '<th scope="col"><span class="unseen">Do</span></th>'
HOSTILE = '</td></tr></tbody></table><table><thead><tr><th>x</th></thead><td colspan="9">" onclick="x'


def draw(rows: str, heads: str = HEADS + DO) -> str:
    """Return a table as a page of ours has one."""
    return make_cards(
        f"<table><caption>c</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    )


def test_each_cell_tells_the_head_of_its_column() -> None:
    """By name; one under a head that is there for those who listen alone tells none."""
    told = draw('<tr><th scope="row">a</th><td class="n">1</td><td>b</td><td>c</td></tr>')
    assert '<th role="rowheader" data-label="Name" scope="row">a</th>' in told
    assert (
        '<td role="cell" data-label="Sent" class="n">1</td><td role="cell" data-label="Goes">b</td>' in told
    )
    assert '<td role="cell">c</td></tr></tbody></table>' in told
    assert told.startswith('<table class="cards" role="table"><caption>')
    assert told.count('role="columnheader"') == 4


def test_a_cell_over_several_columns_counts_as_so_many() -> None:
    """It tells the head of the first; one over all of them tells none, and each row begins anew."""
    rows = ('<td>a</td><td colspan="2">b</td><td>c</td>', '<td colspan="4">d</td>', "<td>e</td>")
    told = draw("".join(f"<tr>{row}</tr>" for row in rows))
    assert '<td role="cell" data-label="Sent" colspan="2">b</td><td role="cell">c</td>' in told
    assert '<td role="cell" colspan="4">d</td>' in told
    assert '<td role="cell" data-label="Name">e</td>' in told


def test_a_head_cannot_leave_its_attribute() -> None:
    """Marks within a head are left out, and its quotation marks stay text."""
    told = draw("<tr><td>a</td></tr>", '<th>A <b>"x"</b> &lt;i&gt;</th><th>B</th>')
    assert '<td role="cell" data-label="A &quot;x&quot; &lt;i&gt;">a</td>' in told


def test_narrow_tables_of_numbers_stay_tables() -> None:
    """A phone has room for six columns; a seventh, or words in one, makes cards of them."""
    numbers = '<th scope="col">Day</th>' + '<th scope="col" class="n">1</th>' * 5
    row = "<tr>" + '<td class="n">1</td>' * 6 + "</tr>"
    assert "cards" not in draw(row, numbers)
    assert "cards" in draw(row, f'{numbers}<th scope="col" class="n">2</th>')
    assert "cards" in draw(row, numbers.replace(' class="n"', "", 1))


def test_what_is_stored_is_no_table(tmp_path: Path) -> None:
    """A page with hostile texts has as many cells as its template, and all of the texts."""
    page = Page(path="/x", title="x", parts=frozenset(), templates=tmp_path)
    template = (
        f"<p>{{{{ text }}}}</p><table><thead><tr>{HEADS}</tr></thead><tbody>"
        '<tr><td>{{ text }}</td><td class="{{ text }}">{{ text }}</td></tr></tbody></table>'
        "<pre>{{ text | text }}</pre>"
    )
    (tmp_path / "page.html").write_text(template)
    told = Renderer([page]).draw(tmp_path, "page.html", {"text": HOSTILE}).decode()
    assert (told.count("<table"), told.count("<td"), told.count("data-label")) == (1, 2, 2)
    assert told.count("onclick=&#34;x") == 5
    (tmp_path / "page.html").write_text(template.replace("{{ text }}", "{{ text | safe }}"))
    told = Renderer([page]).draw(tmp_path, "page.html", {"text": HOSTILE}).decode()
    assert told.count("<td") > 2  # Control
