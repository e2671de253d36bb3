"""The data-flow diagram as it is on this installation: every arrow with its state, and what passed of late.

It is drawn with the console's own styles, which follow the reader's scheme; the table beside it says the
same. Solid arrows are required, dashed ones optional or started by the user, dotted grey ones are off.
"""

from collections.abc import Sequence
from textwrap import wrap

import msgspec
from markupsafe import Markup

WIDTH, MARGIN, ROW, GAP = 980, 14, 66, 10
LEFT, LEFT_WIDTH = 32, 180
TO, TO_WIDTH = 640, 326
MIDDLE = (LEFT + LEFT_WIDTH + TO) // 2
TOP = 44


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
    """Return the diagram as an SVG element."""
    parts: list[Markup] = []
    y = TOP
    machine_end = TOP
    runs: list[list[Arrow]] = []
    for arrow in arrows:
        if runs and runs[-1][0].origin == arrow.origin:
            runs[-1].append(arrow)
        else:
            runs.append([arrow])
    for run in runs:
        height = ROW * len(run) + GAP * (len(run) - 1)
        if run[0].is_ours:
            y += 2 * GAP
        parts.append(_box(LEFT, y, LEFT_WIDTH, height, "node"))
        parts += _lines(
            LEFT + LEFT_WIDTH // 2,
            y + height // 2,
            run[0].origin[:1].upper() + run[0].origin[1:],
            24,
            "name middle",
        )
        for place, arrow in enumerate(run):
            parts += _draw_arrow(arrow, y + place * (ROW + GAP))
        y += height + GAP + 4
        if not run[0].is_ours:
            machine_end = y
    height = y + MARGIN
    words = " ".join(f"{one.title}: {one.state}{', ' if one.passed else ''}{one.passed}." for one in arrows)
    return Markup('<svg viewBox="0 0 {} {}" role="group" aria-label="{}"><desc>{}</desc>{}{}{}</svg>').format(
        WIDTH,
        height,
        title,
        words,
        _box(MARGIN, 12, LEFT_WIDTH + 36, machine_end - 12, "machine"),
        Markup('<text x="{}" y="31" class="soft">Machines of people</text>').format(LEFT),
        Markup("").join(parts),
    )


def _draw_arrow(arrow: Arrow, y: int) -> list[Markup]:
    middle = y + ROW // 2 + 3
    style = "arrow" + ("" if arrow.is_required else " optional") + ("" if arrow.is_on else " off")
    start = LEFT + LEFT_WIDTH
    head = "head" if arrow.is_on else "offhead"
    link = Markup('<a href="{}"><text x="{}" y="{}" class="name middle">{}</text></a>')
    told = f"{arrow.state} · {arrow.passed}" if arrow.passed else arrow.state
    return [
        Markup('<path class="{}" d="M{} {}H{}"></path>').format(style, start, middle, TO - 9),
        Markup('<path class="{}" d="M{} {}l-10 -5.5v11z"></path>').format(head, TO, middle),
        link.format(arrow.link, MIDDLE, middle - 11, arrow.title),
        Markup('<text x="{}" y="{}" class="soft middle">{}</text>').format(MIDDLE, middle + 19, told),
        _box(TO, y, TO_WIDTH, ROW, "node"),
        *_lines(TO + 14, y + ROW // 2, arrow.destination, 44, ""),
    ]


def _lines(x: int, middle: int, text: str, width: int, style: str) -> list[Markup]:
    lines = wrap(text, width, break_on_hyphens=False)[:3]
    start = middle - 8 * (len(lines) - 1) + 5
    return [
        Markup('<text x="{}" y="{}" class="{}">{}</text>').format(x, start + 16 * place, style, line)
        for place, line in enumerate(lines)
    ]


def _box(x: int, y: int, width: int, height: int, style: str) -> Markup:
    return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="8"></rect>').format(
        style, x, y, width, height
    )
