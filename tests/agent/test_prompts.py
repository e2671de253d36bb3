"""What the model is told before the user says anything."""

from datetime import date
from pathlib import Path

import pytest

from bailee.agent.prompts import find_instructions, write_system_prompt
from bailee.agent.settings import Mode
from bailee.policy.problems import Problem


def test_instructions_are_found_from_the_root_down(tmp_path: Path) -> None:
    """The user's own come first, then the repository's from its root to the folder; none from above it."""
    folder = tmp_path / "repository" / "part" / "deep"
    folder.mkdir(parents=True)
    (tmp_path / "repository" / ".git").mkdir()
    own = tmp_path / "own"
    own.mkdir()
    for place in (tmp_path, own, tmp_path / "repository", folder.parent, folder):
        (place / "AGENTS.md").write_text(f"of {place.name}")
    (folder / "CLAUDE.md").write_text("for another agent")
    assert [one.text for one in find_instructions(folder, own)] == [
        *("of own", "of repository", "of part", "of deep")
    ]
    prompt = write_system_prompt(folder, find_instructions(folder), mode=Mode.ASK, today=date(2026, 1, 2))
    assert f"Working directory: {folder}" in prompt
    assert "of deep" in prompt


def test_another_agents_file_is_read_where_there_is_no_other(tmp_path: Path) -> None:
    """CLAUDE.md counts in a folder that has no AGENTS.md."""
    (tmp_path / "CLAUDE.md").write_text("rules")
    assert [one.text for one in find_instructions(tmp_path)] == ["rules"]


def test_instructions_have_a_limit(tmp_path: Path) -> None:
    """A file that would fill the model is refused: it is sent with every request."""
    (tmp_path / "AGENTS.md").write_text("x" * 100_001)
    with pytest.raises(Problem, match="100 kB"):
        find_instructions(tmp_path)
