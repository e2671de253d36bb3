"""The published pages and diagrams are what the manifests say."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bailee.manifests import agents, load_manifest
from bailee.manifests.diagrams import draw
from bailee.manifests.publishing import all_published, drifted, publish

DOCS = Path(__file__).parents[2] / "docs"


def test_published_files_have_not_drifted() -> None:
    """docs/ holds exactly what the manifests say; to mend it: bailee manifests render."""
    assert drifted(DOCS) == ()


@pytest.mark.parametrize("name", sorted(all_published()))
def test_drift_is_found(tmp_path: Path, name: str) -> None:
    """Control: one changed character, or a missing file, is found and mended."""
    for file in all_published():
        shutil.copy(DOCS / file, tmp_path / file)
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(text.replace("e", "3", 1), encoding="utf-8")
    assert drifted(tmp_path) == (name,)
    (tmp_path / name).unlink()
    assert drifted(tmp_path) == (name,)
    assert publish(tmp_path) == (name,)
    assert drifted(tmp_path) == ()


@pytest.mark.parametrize("agent", agents())
def test_the_diagram_is_self_contained(agent: str) -> None:
    """The diagram is well-formed, has a title and a description, and loads and runs nothing."""
    root = ElementTree.fromstring(draw(load_manifest(agent)))  # noqa: S314 - our own text
    space = "{http://www.w3.org/2000/svg}"
    assert [child.tag for child in root][:2] == [f"{space}title", f"{space}desc"]
    tags = {element.tag.removeprefix(space) for element in root.iter()}
    assert tags <= {"svg", "title", "desc", "style", "rect", "text", "path"}
    assert "prefers-color-scheme: dark" in draw(load_manifest(agent))


@pytest.mark.parametrize("agent", agents())
def test_every_flow_is_drawn(agent: str) -> None:
    """Each flow has one arrow: solid where required, dashed where optional or started by the user."""
    drawing = draw(load_manifest(agent))
    legend = 1
    assert drawing.count('class="need" d=') - legend == 1
    assert drawing.count('class="may" d=') - legend == (9 if agent == "bailee" else 8)
    for flow in load_manifest(agent).flows:
        assert f">{flow.title}</text>" in drawing


@pytest.mark.parametrize("agent", agents())
def test_the_page_tells_everything(agent: str) -> None:
    """The page names each flow, each switch and each settings file, and links to headings that are there."""
    stem = "data-usage" if agent == "bailee" else f"data-usage-{agent}"
    page = (DOCS / f"{stem}.md").read_text(encoding="utf-8")
    manifest = load_manifest(agent)
    for name in manifest.variables | manifest.setting_keys | {file.path for file in manifest.settings_files}:
        assert f"`{name}" in page, name
    headings = {line[4:].lower().replace(" ", "-") for line in page.splitlines() if line.startswith("### ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) == headings
    assert f"]({stem}.svg)" in page
