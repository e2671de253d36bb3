"""The data-flow diagram as it is on this installation: every arrow with its state, and what passed of late.

It is drawn with the console's own styles, which follow the reader's scheme; the table beside it says the
same. Solid arrows are required, dashed ones optional or started by the user, dotted grey ones are off.

It is drawn twice, as wide as a desk has room for and as slim as a phone, and the style sheet shows one:
made smaller, the wide one could not be read.
"""

from collections.abc import Sequence
from textwrap import wrap

import msgspec
from markupsafe import Markup

GAP, TOP = 10, 44


class Shape(msgspec.Struct, frozen=True):
    """Where things stand in the picture.

    Attributes:
        margin: around the frame of people's machines, and below all.
        left, left_width, to, to_width: of the boxes that arrows begin at, and lead to.
        row: how high one arrow's row is.
        lines: of a text at most, each below the other by `step`.
        from_letters, arrow_letters, to_letters: in a line of a box's words, and of an arrow's.
    """

    name: str
    width: int
    margin: int
    left: int
    left_width: int
    to: int
    to_width: int
    row: int
    lines: int
    step: int
    from_letters: int
    arrow_letters: int
    to_letters: int

    @property
    def middle(self) -> int:
        """Where an arrow has its middle."""
        return (self.left + self.left_width + self.to) // 2


WIDE = Shape("wide", 980, 14, 32, 180, 640, 326, 66, 3, 16, 24, 80, 44)
SLIM = Shape("slim", 360, 1, 7, 84, 236, 122, 88, 5, 15, 10, 18, 15)


class Arrow(msgspec.Struct, frozen=True):
    """One flow.

    Attributes:
        link: where its title leads.
        state: in words, such as "required" or "off: no next hop".
        is_ours: whether it begins at the service, and not at a machine of somebody's.
        passed: what passed of late, in words.
    """

    id: str
    title: str
    origin: str
    destination: str
    link: str
    is_on: bool
    is_required: bool
    is_ours: bool
    state: str
    passed: str = ""


def draw(arrows: Sequence[Arrow], title: str) -> Markup:
    """Return the diagram as two SVG elements, of which a window shows the one that it has room for."""
    return _draw(arrows, title, WIDE) + _draw(arrows, title, SLIM)


def _draw(arrows: Sequence[Arrow], title: str, shape: Shape) -> Markup:
    people = _wrap("Machines of people", shape.from_letters, shape)
    parts = _lines(shape.left, 26, people, shape, "soft")
    y = TOP
    machine_end = TOP
    runs: list[list[Arrow]] = []
    for arrow in arrows:
        if runs and runs[-1][0].origin == arrow.origin:
            runs[-1].append(arrow)
        else:
            runs.append([arrow])
    for run in runs:
        height = shape.row * len(run) + GAP * (len(run) - 1)
        if run[0].is_ours:
            y += 2 * GAP
        parts.append(_box(shape.left, y, shape.left_width, height, "node"))
        origin = run[0].origin[:1].upper() + run[0].origin[1:]
        lines = _wrap(origin, shape.from_letters, shape)
        parts += _lines(shape.left + shape.left_width // 2, y + height // 2, lines, shape, "name middle")
        for place, arrow in enumerate(run):
            parts += _draw_arrow(arrow, y + place * (shape.row + GAP), shape)
        y += height + GAP + 4
        if not run[0].is_ours:
            machine_end = y
    words = " ".join(f"{one.title}: {one.state}{', ' if one.passed else ''}{one.passed}." for one in arrows)
    frame = _box(
        shape.margin, 12, shape.left_width + 2 * (shape.left - shape.margin), machine_end - 12, "machine"
    )
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="group" aria-label="{}"><desc>{}</desc>{}{}</svg>'
    ).format(
        shape.name,
        shape.width,
        y + shape.margin,
        title,
        words,
        frame,
        Markup("").join(parts),
    )


def _draw_arrow(arrow: Arrow, y: int, shape: Shape) -> list[Markup]:
    middle = y + shape.row // 2 + 3
    style = "arrow" + ("" if arrow.is_required else " optional") + ("" if arrow.is_on else " off")
    start = shape.left + shape.left_width
    head = "head" if arrow.is_on else "offhead"
    told = f"{arrow.state} · {arrow.passed}" if arrow.passed else arrow.state
    above = _wrap(arrow.title, shape.arrow_letters, shape)
    below = [told]
    if len(told) > shape.arrow_letters:
        below = [
            line for part in (arrow.state, arrow.passed) for line in _wrap(part, shape.arrow_letters, shape)
        ]
    # Lines stand around the middle that they are given: the last one above the arrow, the first one below it.
    over = middle - 16 - shape.step * (len(above) - 1) // 2
    under = middle + 14 + shape.step * (len(below) - 1) // 2
    return [
        Markup('<path class="{}" d="M{} {}H{}"></path>').format(style, start, middle, shape.to - 9),
        Markup('<path class="{}" d="M{} {}l-10 -5.5v11z"></path>').format(head, shape.to, middle),
        Markup('<a href="{}">{}</a>').format(
            arrow.link, Markup("").join(_lines(shape.middle, over, above, shape, "name middle"))
        ),
        *_lines(shape.middle, under, below, shape, "soft middle"),
        _box(shape.to, y, shape.to_width, shape.row, "node"),
        *_lines(
            shape.to + min(14, shape.left),
            y + shape.row // 2,
            _wrap(arrow.destination, shape.to_letters, shape),
            shape,
            "",
        ),
    ]


def _wrap(text: str, letters: int, shape: Shape) -> list[str]:
    return wrap(text, letters, break_on_hyphens=False)[: shape.lines]


def _lines(x: int, middle: int, lines: Sequence[str], shape: Shape, style: str) -> list[Markup]:
    """Return lines that stand around a middle, one below the other."""
    start = middle - shape.step * (len(lines) - 1) // 2 + 5
    return [
        Markup('<text x="{}" y="{}" class="{}">{}</text>').format(x, start + shape.step * place, style, line)
        for place, line in enumerate(lines)
    ]


def _box(x: int, y: int, width: int, height: int, style: str) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="8"></rect>').format(
        style, x, y, width, height
    )
