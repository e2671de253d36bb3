"""Draws pages: Jinja with everything escaped, and the few words and shapes that all pages share."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, PrefixLoader, StrictUndefined
from markupsafe import Markup, escape

from bailee.characters import make_visible
from bailee.console.cards import make_cards
from bailee.moments import tell_minute
from bailee.pages import Page
from bailee.sizes import tell_count, tell_size

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"
SHELL = "shell"
# What is shown of one text; the rest is in the export.
LONGEST_SHOWN = 20_000
INSET = 6  # of a chart's first and last point, so that neither is cut


class Renderer:
    """Templates of the console and of every page's own folder."""

    def __init__(self, pages: Iterable[Page]) -> None:
        folders = {page.templates for page in pages} | {TEMPLATES}
        loaders = {_prefix(folder): FileSystemLoader(folder) for folder in folders}
        loaders[SHELL] = FileSystemLoader(TEMPLATES)
        self._environment = Environment(
            loader=PrefixLoader(loaders),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        filters = {
            "minute": minute,
            "day": tell_day,
            "size": size,
            "number": number,
            "count": tell_count,
            "visible": visible,
            "coded": coded,
            "text": shown_text,
            "days_left": days_left,
        }
        self._environment.filters.update(filters)
        self._environment.globals.update({"bars": bars, "line": line})

    def draw(self, folder: Path, template: str, facts: Mapping[str, Any]) -> bytes:
        """Return a page as HTML."""
        found = self._environment.get_template(f"{_prefix(folder)}/{template}")
        return make_cards(found.render(facts)).encode("utf-8", "replace")


def _prefix(folder: Path) -> str:
    return "_".join(folder.parts[-2:])


def minute(milliseconds: int | None) -> Markup:
    """Write a moment, UTC, in a `time` element."""
    if not milliseconds:
        return Markup("–")
    machine = datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(machine, tell_minute(milliseconds))


def tell_day(day: date | None) -> str:
    """Write a day."""
    return day.isoformat() if day is not None else "–"


def days_left(day: date | None, today: date) -> str:
    """Write how many days something is held still."""
    if day is None:
        return "no end"
    left = (day - today).days
    return tell_count(left, "day") if left > 0 else "today"


def size(count: int | None) -> str:
    """Write a number of bytes with its unit."""
    return tell_size(count) if count is not None else "–"


def number(count: float | None) -> str:
    """Write a number with its thousands apart."""
    if count is None:
        return "–"
    return f"{count:,.0f}" if abs(count) >= 10 or count == int(count) else f"{count:,.2g}"


def visible(text: object) -> str:
    """Return one line of text with characters that a terminal or a reader would obey made visible."""
    return make_visible(str(text))


def coded(text: str) -> Markup:
    """Return one line of text, what stands between backticks in it as code."""
    parts = [visible(part) for part in text.split("`")]
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if place % 2 else part for place, part in enumerate(parts))


def shown_text(text: str, most: int = LONGEST_SHOWN) -> Markup:
    """Return text of many lines: control characters made visible, and cut where it is too long to look at."""
    cut = text[:most]
    lines = "\n".join(make_visible(one.replace("\t", "    ")) for one in cut.split("\n"))
    more = len(text) - len(cut)
    note = Markup('\n<span class="cut">… {} characters more, not shown here</span>').format(f"{more:,}")
    return escape(lines) + (note if more > 0 else Markup(""))


def bars(values: Sequence[tuple[str, float]], title: str, unit: str = "") -> Markup:
    """Draw values as bars, one beside the other; a table beside it says the same in numbers."""
    width, height, gap = 720, 140, 2
    most = max((value for _, value in values), default=0) or 1
    step = width / max(1, len(values))
    parts = []
    for place, (label, value) in enumerate(values):
        tall = value / most * (height - 8)
        parts.append(
            Markup(
                '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                "<title>{}</title></rect>"
            ).format(
                place * step + gap / 2,
                height - max(tall, 1 if value else 0),
                max(1.0, min(step - gap, 48)),
                max(tall, 1 if value else 0),
                f"{label}: {number(value)}{unit}",
            )
        )
    return _chart(title, Markup("").join(parts), f"{number(most)}{unit}", values, width, height)


def line(
    series: Mapping[str, Sequence[float | None]], labels: Sequence[str], title: str, unit: str = ""
) -> Markup:
    """Draw one line for each series over the same labels."""
    width, height = 720, 140
    most = max((value for one in series.values() for value in one if value is not None), default=0) or 1
    step = (width - 2 * INSET) / max(1, len(labels) - 1) if len(labels) > 1 else 0
    parts = []
    for place, (name, values) in enumerate(series.items()):
        points = [
            f"{INSET + index * step if step else width / 2:.1f},{height - value / most * (height - 8):.1f}"
            for index, value in enumerate(values)
            if value is not None
        ]
        if len(points) == 1:
            parts.append(Markup('<path class="line line-{} dot" d="M{}h0"></path>').format(place, points[0]))
        parts.append(
            Markup('<polyline class="line line-{}" points="{}"><title>{}</title></polyline>').format(
                place, " ".join(points), name
            )
        )
    legend = Markup("").join(
        Markup('<li class="key-{}">{}</li>').format(place, name) for place, name in enumerate(series)
    )
    chart = _chart(
        title, Markup("").join(parts), f"{number(most)}{unit}", [(one, 0) for one in labels], width, height
    )
    return chart + Markup('<ul class="legend">{}</ul>').format(legend) if len(series) > 1 else chart


def _chart(
    title: str, body: Markup, most: str, values: Sequence[tuple[str, float]], width: int, height: int
) -> Markup:
    first, last = (values[0][0], values[-1][0]) if values else ("", "")
    last = last if len(values) > 1 else ""
    axis = Markup('<path class="axis" d="M0 {}H{}"></path>').format(height, width)
    return Markup(
        '<figure class="chart"><figcaption>{} <span>most: {}</span></figcaption>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" preserveAspectRatio="none">{}{}</svg>'
        '<p class="ends"><span>{}</span><span>{}</span></p></figure>'
    ).format(
        title,
        most,
        width,
        height,
        f"{title}; the table beside it has the numbers",
        body,
        axis,
        first,
        last,
    )
