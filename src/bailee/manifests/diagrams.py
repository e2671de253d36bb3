"""The data-flow diagram of a manifest as one SVG file: no script, no font, no address outside itself.

Solid lines are required connections, dashed ones optional or started by the user, as in the vendor's diagram.
Colours follow the reader's light or dark scheme.
"""

from collections.abc import Iterator, Sequence
from html import escape
from textwrap import wrap

from bailee.manifests.loading import Manifest
from bailee.policy.flows import Flow, FlowId
from bailee.policy.plans import Location, Provider

WIDTH = 980
MARGIN = 20
ROW = 58
LINE = 17
TOP = 92  # the heading and the legend
MACHINE_WIDTH = 236
NODE_LEFT = MARGIN + 18
NODE_WIDTH = MACHINE_WIDTH - 36
ARROW_FROM = NODE_LEFT + NODE_WIDTH
ARROW_TO = 566
DESTINATION_WIDTH = WIDTH - MARGIN - ARROW_TO
DESTINATION_CHARACTERS = 52  # of 13 px text in DESTINATION_WIDTH, measured with the widest hosts
LABEL_MIDDLE = (MARGIN + MACHINE_WIDTH + ARROW_TO) // 2
CACHE_HEIGHT = 96

STYLE = """
    svg { --paper: #ffffff; --ink: #1f2328; --soft: #59636e; --edge: #d1d9e0; --fill: #f6f8fa;
          --need: #0a5c36; --may: #9a4a00; }
    @media (prefers-color-scheme: dark) {
      svg { --paper: #0d1117; --ink: #f0f6fc; --soft: #9198a1; --edge: #3d444d; --fill: #151b23;
            --need: #4ac26b; --may: #f0a35e; }
    }
    text { font: 13px ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: var(--ink); }
    .heading { font-size: 18px; font-weight: 600; }
    .name { font-weight: 600; }
    .soft { font-size: 11.5px; fill: var(--soft); }
    .middle { text-anchor: middle; }
    .paper { fill: var(--paper); }
    .machine { fill: none; stroke: var(--soft); stroke-width: 1.5; }
    .node { fill: var(--fill); stroke: var(--edge); }
    .need { stroke: var(--need); stroke-width: 2.2; fill: none; }
    .may { stroke: var(--may); stroke-width: 1.8; stroke-dasharray: 7 5; fill: none; }
    .needhead { fill: var(--need); }
    .mayhead { fill: var(--may); }
"""


def draw(manifest: Manifest) -> str:
    """Return the SVG of a manifest's flows."""
    leaving = [flow for flow in manifest.flows if flow.id is not FlowId.LOCAL_CACHE]
    cache = manifest.flow(FlowId.LOCAL_CACHE)
    body, bottom = _rows(leaving, TOP + CACHE_HEIGHT)
    height = bottom + MARGIN
    title = f"Data flows of {manifest.title}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-labelledby="title description">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="description">{escape(description(manifest))}</desc>',
        f"  <style>{STYLE}  </style>",
        _rectangle(0, 0, WIDTH, height, "paper", 0),
        _text(MARGIN, 34, title, "heading"),
        *_legend(),
        _rectangle(MARGIN, TOP - 14, MACHINE_WIDTH, bottom - TOP + 14, "machine", 12),
        _text(MARGIN + 14, TOP + 6, "Your machine", "soft"),
        *_cache(cache),
        *body,
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def description(manifest: Manifest) -> str:
    """Return the diagram in words, for those who do not see it."""
    sentences = []
    for flow in manifest.flows:
        need = "required" if flow.required else "optional"
        to = flow.destinations[Provider.ANTHROPIC]
        sentences.append(f"{flow.title}, {need}, from {flow.origin} to {to}.")
    return " ".join(sentences)


def defaults(flow: Flow) -> str:
    """Return a flow's defaults in a few words."""
    if flow.is_required(Location.LOCAL):
        return "required"
    off = [provider.capitalize() for provider in Provider if not flow.default[provider]]
    if not any(flow.default.values()):
        return "off by default"
    words = "started by the user" if flow.initiated_by == "user" else "on by default"
    if flow.required:
        words += "; required in the cloud"
    return f"{words}; off on {' and '.join(off)}" if off else words


def _rows(flows: Sequence[Flow], top: int) -> tuple[list[str], int]:
    parts: list[str] = []
    y = top
    for origin, group in _runs(flows, [flow.origin for flow in flows]):
        node_top = y
        for _, same in _runs(group, [str(flow.destinations) for flow in group]):
            lines = list(_destination_lines(same[0]))
            height = max(ROW * len(same), LINE * len(lines) + 22)
            parts += _destination(lines, y, height)
            step = height / len(same)
            for place, flow in enumerate(same):
                parts += _arrow(flow, round(y + step * (place + 0.5)))
            y += height + 12
        parts.append(_rectangle(NODE_LEFT, node_top, NODE_WIDTH, y - 12 - node_top, "node", 8))
        middle = (node_top + y - 12) // 2
        parts.append(
            _text(NODE_LEFT + NODE_WIDTH // 2, middle + 5, origin[0].upper() + origin[1:], "name middle")
        )
        y += 6
    return parts, y


def _runs(flows: Sequence[Flow], keys: Sequence[str]) -> Iterator[tuple[str, list[Flow]]]:
    run: list[Flow] = []
    for place, flow in enumerate(flows):
        if place and keys[place] != keys[place - 1]:
            yield keys[place - 1], run
            run = []
        run.append(flow)
    if run:
        yield keys[-1], run


def _destination_lines(flow: Flow) -> Iterator[tuple[str, str]]:
    first = flow.destinations[Provider.ANTHROPIC]
    heading = "T" + first[1:] if first.startswith("the ") else first
    for line in wrap(heading, DESTINATION_CHARACTERS, break_on_hyphens=False):
        yield line, "name"
    for provider in (Provider.BEDROCK, Provider.VERTEX):
        if flow.destinations[provider] != first:
            text = f"on {provider.capitalize()}: {flow.destinations[provider]}"
            for line in wrap(text, 60, break_on_hyphens=False):
                yield line, "soft"


def _destination(lines: Sequence[tuple[str, str]], y: int, height: int) -> Iterator[str]:
    yield _rectangle(ARROW_TO, y, DESTINATION_WIDTH, height, "node", 8)
    start = y + (height - LINE * len(lines)) // 2 + 13
    for place, (line, style) in enumerate(lines):
        yield _text(ARROW_TO + 16, start + LINE * place, line, style)


def _arrow(flow: Flow, y: int) -> Iterator[str]:
    style = "need" if flow.is_required(Location.LOCAL) else "may"
    yield f'  <path class="{style}" d="M{ARROW_FROM} {y}H{ARROW_TO - 9}"/>'
    yield f'  <path class="{style}head" d="M{ARROW_TO} {y}l-10 -5.5v11z"/>'
    yield _text(LABEL_MIDDLE, y - 8, flow.title, "name middle")
    yield _text(LABEL_MIDDLE, y + 18, defaults(flow), "soft middle")


def _cache(flow: Flow) -> Iterator[str]:
    y = TOP + 16
    yield _rectangle(NODE_LEFT, y, NODE_WIDTH, 40, "node", 8)
    yield _text(NODE_LEFT + NODE_WIDTH // 2, y + 25, flow.title, "name middle")
    x = NODE_LEFT + NODE_WIDTH // 2
    yield f'  <path class="may" d="M{x} {TOP + CACHE_HEIGHT}V{y + 49}"/>'
    yield f'  <path class="mayhead" d="M{x} {y + 40}l-5.5 10h11z"/>'


def _legend() -> Iterator[str]:
    y = 58
    yield f'  <path class="need" d="M{MARGIN} {y}h44"/>'
    yield _text(MARGIN + 54, y + 4, "required", "soft")
    yield f'  <path class="may" d="M{MARGIN + 130} {y}h44"/>'
    yield _text(MARGIN + 184, y + 4, "optional, or started by the user", "soft")


def _rectangle(x: int, y: int, width: int, height: int, style: str, radius: int) -> str:
    return f'  <rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"/>'


def _text(x: int, y: int, text: str, style: str) -> str:
    return f'  <text class="{style}" x="{x}" y="{y}">{escape(text)}</text>'
