"""The published files of every manifest: what should be in them, and whether they have drifted."""

from collections.abc import Mapping
from pathlib import Path

from bailee.manifests.catalogues import find_catalogues
from bailee.manifests.diagrams import draw
from bailee.manifests.loading import OWN, agents, load_manifest
from bailee.manifests.pages import catalogue_page, page

OPERATIONAL = "operational-data.md"


def published(agent: str) -> Mapping[str, str]:
    """Return the files of one agent's manifest: name to text."""
    # Its page needs no suffix.
    stem = "data-usage" if agent == OWN else f"data-usage-{agent}"
    manifest = load_manifest(agent)
    return {f"{stem}.md": page(manifest, f"{stem}.svg"), f"{stem}.svg": draw(manifest)}


def all_published() -> Mapping[str, str]:
    """Return the files of all manifests: name to text."""
    pages = {name: text for agent in agents() for name, text in published(agent).items()}
    return pages | {OPERATIONAL: catalogue_page(find_catalogues())}


def drifted(folder: Path) -> tuple[str, ...]:
    """Return the names of published files in a folder that are absent or not what the manifests say."""
    return tuple(name for name, text in all_published().items() if _text(folder / name) != text)


def publish(folder: Path) -> tuple[str, ...]:
    """Write the published files that have drifted; return their names."""
    names = drifted(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(all_published()[name], encoding="utf-8")
    return names


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
