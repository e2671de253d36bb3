"""The project is what its documents say: commands, files, variables, locked libraries."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click
import pytest

from bailee.cli import group
from bailee.cli.reference import write_reference

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SOURCES = sorted(
    path
    for folder in ("src", "tests", "scripts", "bench")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands_in(text: str) -> Iterator[list[str]]:
    """Find the calls of `bailee` in code blocks and code spans, as words after the program's name."""
    call = r"(?:^\s*(?:\$ )?|`|-m )(?:[A-Z_]+=\S+ )*bailee ((?:[a-z]+\b ?)+)"
    for found in re.finditer(call, text, re.MULTILINE):
        yield found[1].split()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_named_exists(document: Path) -> None:
    """Every `bailee ...` a document names is a command of the program, down to its subcommand."""
    for words in commands_in(document.read_text()):
        command: click.Command = group
        for word in words:
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"{document.name}: bailee {' '.join(words)}"
            command = found


def test_the_search_for_commands_can_fail() -> None:
    """Control: calls in the forms that documents use are found."""
    text = "$ bailee run -- x\n    KEY=... bailee up --port 1\n`bailee sessions erase ID`\n"
    assert [words[:2] for words in commands_in(text)] == [["run"], ["up"], ["sessions", "erase"]]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_and_file_named_exists(document: Path) -> None:
    """Links between documents lead somewhere, and files named with their folder are there."""
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (document.parent / target).exists(), target
    for named in re.findall(r"`((?:src|tests|docs|scripts|bench|requirements)/[\w./-]+\.\w+)`", text):
        assert (ROOT / named).exists(), named


def test_the_reference_of_commands_is_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """`docs/cli.md` is what the commands say of themselves."""
    monkeypatch.delenv("BAILEE_HOME", raising=False)
    assert (ROOT / "docs" / "cli.md").read_text() == write_reference(group)


def test_every_variable_read_is_documented() -> None:
    """Each variable of ours that the program reads is in `docs/configuration.md`."""
    told = (ROOT / "docs" / "configuration.md").read_text()
    read = {
        name
        for path in SOURCES
        if path.is_relative_to(ROOT / "src") and "tests" not in path.parts
        for name in re.findall(r'"(BAILEE_[A-Z_]+)"', path.read_text())
    }
    assert {"BAILEE_HOME", "BAILEE_UPSTREAM_KEY"} <= read
    assert [name for name in sorted(read) if f"`{name}`" not in told] == []


def test_limits_told_are_the_limits() -> None:
    """The figures of `docs/configuration.md` are the constants of the code."""
    from bailee.flows.messages import connections, exchanges, gateway
    from bailee.service import serving
    from bailee.vault import recording

    text = (ROOT / "docs" / "configuration.md").read_text()
    for told in (
        f"| a request's body | {gateway.MAX_BODY_BYTES // 2**20} MiB |",
        f"| a request's headers | {gateway.MAX_HEAD_BYTES // 1024} KiB |",
        f"| an answer whose record does not become durable | {exchanges.DURABLE_SECONDS:g} s |",
        f"| an upstream's silence | {gateway.SILENCE_SECONDS:g} s |",
        f"| a connection to the upstream | {connections.CONNECT_SECONDS:g} s |",
        f"| handed to the recorder and not yet taken | {recording.OUTSTANDING_BYTES // 2**20} MiB |",
        f"a new one starts after {recording.RESTART_SECONDS:g} s |",
        f"| shutdown | {serving.GRACE_SECONDS} s for running answers |",
    ):
        assert told in text


def test_limits_of_telemetry_told_are_the_limits() -> None:
    """The figures of `docs/telemetry.md` are the constants of the code."""
    from bailee import bodies
    from bailee.flows.errors import envelopes
    from bailee.flows.errors import receiver as errors
    from bailee.flows.feedback import receiver as feedback
    from bailee.flows.feedback import reports
    from bailee.flows.metrics import receiver as metrics

    text = (ROOT / "docs" / "telemetry.md").read_text()
    for told in (
        f"| {metrics.MOST_BYTES // 2**20} MiB, "
        f"{metrics.MOST_DECODED_BYTES // 2**20} MiB without its coding |",
        f"| {errors.MOST_BYTES // 2**20} MiB, with or without its coding; "
        f"an event {errors.MOST_EVENT_BYTES // 2**20} MiB, an envelope {envelopes.MOST_ITEMS:,} items |",
        f"| a report | {reports.MOST_BYTES // 10**6} MB |",
        f"| {bodies.SECONDS:g} s; a report's {feedback.UPLOAD_SECONDS / 60:g} minutes |",
    ):
        assert told in text


def test_every_decision_is_in_the_index() -> None:
    """Each ADR is listed in the index by its number and title."""
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    decisions = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
    for number, path in enumerate(decisions, 1):
        heading = path.read_text().splitlines()[0]
        assert heading.startswith(f"# {number}. "), heading
        assert f"{number}. [{heading.partition('. ')[2]}]({path.name})" in index


def test_libraries_are_locked_by_hash_and_without_addresses() -> None:
    """Each requirement has a version and a hash, and no file says where it comes from."""
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        text = path.read_text()
        assert "://" not in text
        blocks = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).strip())
        assert len(blocks) > 5
        for block in blocks:
            assert re.match(r"[A-Za-z0-9_.-]+(\[[\w, -]+\])?==\S+", block), block
            assert "--hash=sha256:" in block, block
    lock = json.loads((ROOT / "package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or "integrity" in package, name


def test_every_library_has_its_reason() -> None:
    """Each dependency of the program has its line in the decision on libraries."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    text = (ROOT / "docs" / "adr" / "0002-libraries.md").read_text()
    for requirement in named:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        assert name[0] in text.lower(), requirement


def test_the_agent_tested_is_pinned() -> None:
    """The real agent's version is exact, so that a test that passed passes again."""
    package = json.loads((ROOT / "package.json").read_text())
    versions = {**package.get("dependencies", {}), **package.get("devDependencies", {})}
    assert re.fullmatch(r"\d+\.\d+\.\d+", versions["@anthropic-ai/claude-code"])


@pytest.mark.parametrize("source", SOURCES, ids=name_of)
def test_every_module_says_what_it_is_and_stays_small(source: Path) -> None:
    """A module begins with its docstring and has at most 500 lines; tests may be longer."""
    text = source.read_text()
    assert ast.get_docstring(ast.parse(text)), source
    if "tests" not in source.parts:
        assert text.count("\n") <= 500


def test_the_readme_is_short_and_names_the_test_command() -> None:
    """The first screen has the two commands, and all of it is under 200 lines."""
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) < 200
    assert "$ make demo" in lines[:15]
    assert "$ make test" in lines[:15]
