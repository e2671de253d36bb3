"""Tools: what they do, and what they cannot be made to do."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bailee.agent.tools import TOOLS, Workspace
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.files import read_text, write_text
from bailee.agent.tools.paths import Project
from bailee.agent.tools.protocol import LONGEST_RESULT
from bailee.agent.tools.running import WITHHELD, WITHHELD_FOR
from bailee.policy.plans import Provider


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    project = tmp_path / "project"
    project.mkdir()
    (project / "a.py").write_text("one\ntwo\ntwo\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return Workspace(Project.at(project), environment=environment, command_seconds=20)


def use(workspace: Workspace, tool: str, **arguments: Any) -> str:
    TOOLS[tool].preview(arguments, workspace)
    return TOOLS[tool].run(arguments, workspace)


WAYS_OUT = [
    "../secret",
    "/etc/hostname",
    "out",
    "out/secret",
    "~/secret",
    "sub/../../secret",
    "a/../out/secret",
]


@pytest.mark.parametrize("path", WAYS_OUT)
@pytest.mark.parametrize("tool", ["read", "write", "edit", "search", "list"])
def test_no_path_leads_out(tmp_path: Path, workspace: Workspace, tool: str, path: str) -> None:
    """Neither a dotted, an absolute, a home path nor a link leads a tool out of the project."""
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "project" / "sub").mkdir()
    (tmp_path / "project" / "out").symlink_to(tmp_path)
    arguments = {"path": path, "content": "x", "old": "SECRET", "new": "x", "pattern": "SECRET"}
    for step in (TOOLS[tool].preview, TOOLS[tool].run):
        with pytest.raises(Failed, match="outside the project"):
            step(arguments, workspace)
    assert (tmp_path / "secret").read_text() == "SECRET"


def test_a_folder_the_user_added_is_inside(tmp_path: Path, workspace: Workspace) -> None:
    """Control: the same file is read where its folder was added."""
    (tmp_path / "secret").write_text("SECRET")
    wider = Workspace(Project.at(tmp_path / "project", [tmp_path]), environment={}, command_seconds=5)
    assert "SECRET" in use(wider, "read", path="../secret")


def test_search_follows_no_link_out(tmp_path: Path, workspace: Workspace) -> None:
    """A search of the project finds nothing behind a link that leads out of it."""
    (tmp_path / "secret").write_text("SECRET")
    (tmp_path / "project" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "project" / "folder").symlink_to(tmp_path)
    assert use(workspace, "search", pattern="SECRET") == "(nothing found)"
    assert use(workspace, "search", pattern="two") == "a.py:2:two\na.py:3:two"


def test_read_numbers_lines_and_goes_on(workspace: Workspace) -> None:
    """Lines come with their numbers, and a part says how to get the rest."""
    assert use(workspace, "read", path="a.py", first=2, lines=1) == "2\ttwo\n[1 more lines: first=3]"


@pytest.mark.parametrize("kind", ["pipe", "binary", "folder", "none", "huge"])
def test_what_is_no_text_is_refused(workspace: Workspace, kind: str) -> None:
    """A pipe does not hang, a binary is not shown, a folder names its tool, what is too large its limit."""
    path = workspace.project.folder / "x"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "binary":
            path.write_bytes(b"\x00\x01")
        case "folder":
            path.mkdir()
        case "huge":
            with path.open("wb") as file:
                file.truncate(11_000_000)
    with pytest.raises(Failed):
        use(workspace, "read", path="x")


def test_a_file_is_not_overwritten_unread(workspace: Workspace) -> None:
    """A file that was not read here, or changed since, is not written over; a new one is."""
    with pytest.raises(Failed, match="not read yet"):
        use(workspace, "write", path="a.py", content="x")
    use(workspace, "read", path="a.py")
    path = workspace.project.folder / "a.py"
    path.write_text("changed by somebody else")
    with pytest.raises(Failed, match="changed since"):
        use(workspace, "write", path="a.py", content="x")
    assert path.read_text() == "changed by somebody else"
    use(workspace, "write", path="new/b.py", content="x\n")
    assert (workspace.project.folder / "new" / "b.py").read_text() == "x\n"


def test_edit_wants_the_text_once(workspace: Workspace) -> None:
    """An edit that fits nowhere or more than once changes nothing and says so; its mode is kept."""
    path = workspace.project.folder / "a.py"
    path.chmod(0o751)
    with pytest.raises(Failed, match="2 times"):
        use(workspace, "edit", path="a.py", old="two", new="2")
    with pytest.raises(Failed, match="does not stand"):
        use(workspace, "edit", path="a.py", old="three", new="3")
    assert path.read_text() == "one\ntwo\ntwo\n"
    assert "+2" in use(workspace, "edit", path="a.py", old="two", new="2", all=True)
    assert path.read_text() == "one\n2\n2\n"
    assert path.stat().st_mode & 0o777 == 0o751
    assert [found.name for found in workspace.project.folder.iterdir()] == ["a.py"]


@pytest.mark.parametrize(
    "name", [".git/hooks/pre-commit", ".bailee/settings.json", ".envrc", "a/.vscode/x.json"]
)
def test_what_runs_by_itself_is_sensitive(workspace: Workspace, name: str) -> None:
    """A change of hooks, editor tasks or the agent's own settings is marked, so that it is asked about."""
    assert TOOLS["write"].preview({"path": name, "content": "x"}, workspace).is_sensitive
    assert not TOOLS["write"].preview({"path": "b.py", "content": "x"}, workspace).is_sensitive


def test_a_command_gets_no_credentials(workspace: Workspace) -> None:
    """What opens the model is not in the environment of a command; what the user's own programs need is."""
    names = [name.replace("*", "X") for name in WITHHELD]
    workspace.environment |= dict.fromkeys(names, "SECRET") | {"EDITOR": "vi"}
    told = use(workspace, "bash", command="env")
    assert "SECRET" not in told
    assert "EDITOR=vi" in told


def test_a_command_that_fails_says_its_status(workspace: Workspace) -> None:
    """The output comes with the exit status where that is not 0."""
    with pytest.raises(Failed, match=r"both\nways\n\[exit status 3\]"):
        use(workspace, "bash", command="echo both; echo ways >&2; exit 3")


def test_long_output_keeps_both_ends(workspace: Workspace) -> None:
    """Of a flood of output the first and the last part are kept, and the amount between is told."""
    told = use(workspace, "bash", command="echo first; yes | head -n 2000000; echo last")
    assert told.startswith("first\n")
    assert told.endswith("last")
    assert "left out" in told
    assert len(told) < LONGEST_RESULT + 200


def test_a_daemon_ends_with_its_command(workspace: Workspace) -> None:
    """What leaves the command's session and process group is ended as well, and nobody else's process."""
    other = subprocess.Popen(["sleep", "60"])
    command = "setsid -f sleep 61; (setsid nohup sleep 61 >/dev/null 2>&1 &)"
    assert use(workspace, "bash", command=command) == "(no output)"
    left = subprocess.run(["pgrep", "-x", "-f", "sleep 61"], capture_output=True, text=True, check=False)
    assert left.stdout == ""
    assert other.poll() is None  # control: it is what would be seen
    other.kill()
    other.wait()


def test_a_command_ends_with_its_time_and_all_it_started(workspace: Workspace) -> None:
    """After its time a command is ended, with what it put into the background and what ignores SIGTERM."""
    mark = workspace.project.folder / "mark"
    script = f"(trap '' TERM; sleep 4; touch {mark}) & echo begun; sleep 60"
    started = time.monotonic()
    with pytest.raises(Failed, match=r"begun\n\[ended after 1 s\]"):
        use(workspace, "bash", command=script, seconds=1)
    assert time.monotonic() - started < 10
    left = subprocess.run(["pgrep", "-f", str(mark)], capture_output=True, check=False).stdout
    assert left == b""


def test_a_command_does_not_outlive_its_call(workspace: Workspace) -> None:
    """What a command leaves in the background neither holds the call nor goes on after it."""
    started = time.monotonic()
    assert use(workspace, "bash", command="sleep 61.5 & echo done") == "done"
    assert time.monotonic() - started < 5
    assert subprocess.run(["pgrep", "-fx", "sleep 61.5"], capture_output=True, check=False).stdout == b""


def test_a_command_reads_nothing(workspace: Workspace) -> None:
    """The terminal of the user is not the command's: its input is empty at once."""
    assert use(workspace, "bash", command="cat; echo end") == "end"


@pytest.mark.parametrize("tool", list(TOOLS))
def test_arguments_of_another_kind_are_refused(workspace: Workspace, tool: str) -> None:
    """A model that sends numbers for names gets told; nothing happens."""
    with pytest.raises(Failed):
        use(workspace, tool, path=7, pattern=7, command=7)


def test_folders_that_are_swapped_lead_nobody_out(tmp_path: Path, workspace: Workspace) -> None:
    """A process that puts a link in a folder's place, again and again, brings no text out and none in."""
    project, outside = workspace.project.folder, tmp_path / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("SECRET")
    (project / "sub").mkdir()
    (project / "sub" / "a.txt").write_text("mine")
    script = (
        "import os, sys\n"
        "while True:\n"
        "    os.rename('sub', 'away'); os.symlink(sys.argv[1], 'sub')\n"
        "    os.unlink('sub'); os.rename('away', 'sub')\n"
    )
    swapping = subprocess.Popen([sys.executable, "-c", script, str(outside)], cwd=project)
    tried = done = 0
    try:
        deadline = time.monotonic() + 20
        while tried < 400 and time.monotonic() < deadline:
            tried += 1
            with contextlib.suppress(Failed, OSError):
                assert "SECRET" not in use(workspace, "read", path="sub/a.txt")
                use(workspace, "write", path="sub/a.txt", content=f"changed {tried}")
                done += 1
            with contextlib.suppress(Failed, OSError):
                use(workspace, "write", path=f"sub/new-{tried}.txt", content="x")
    finally:
        swapping.kill()
        swapping.wait()
    assert done > 0
    assert sorted(path.name for path in outside.iterdir()) == ["a.txt"]
    assert (outside / "a.txt").read_text() == "SECRET"


def test_control_without_descriptors_a_swap_leads_out(tmp_path: Path) -> None:
    """Control: a path that is resolved and then opened by its name is led out by a link put there between."""
    root, outside = tmp_path / "project", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "a.txt").write_text("SECRET")
    located = Project.at(root).locate("sub/a.txt")
    (root / "sub").rmdir()
    (root / "sub").symlink_to(outside)
    assert located.read_text() == "SECRET"
    with pytest.raises(Failed):
        read_text(root, located, "sub/a.txt")
    with pytest.raises(Failed):
        write_text(root, located, "x", "sub/a.txt")
    assert (outside / "a.txt").read_text() == "SECRET"


def test_a_new_file_is_its_owners_until_it_is_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is being written has the mode 0600 and gets its own when it is whole."""
    seen: list[int] = []
    real = os.fchmod

    def note(descriptor: int, mode: int) -> None:
        seen.append(os.fstat(descriptor).st_mode & 0o777)
        real(descriptor, mode)

    monkeypatch.setattr(os, "fchmod", note)
    use(workspace, "write", path="new.txt", content="x")
    mask = os.umask(0)
    os.umask(mask)
    assert seen == [0o600]
    assert (workspace.project.folder / "new.txt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_an_expression_without_end_ends(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ripgrep, too, a search has its time; what it finds otherwise is the same (control)."""
    monkeypatch.setattr("bailee.agent.tools.searching.SECONDS", 3)
    workspace.environment["PATH"] = "/nowhere"
    (workspace.project.folder / "b.txt").write_text("a" * 40 + "!\n")
    assert use(workspace, "search", pattern="^two$") == "a.py:2:two\na.py:3:two"
    with pytest.raises(Failed, match="longer than 3 s"):
        use(workspace, "search", pattern="^(a+)+$")


def test_a_search_runs_nothing_of_the_project(workspace: Workspace) -> None:
    """A module of the project that is called like one of ours is not what searches."""
    workspace.environment["PATH"] = "/nowhere"
    for name in ("bailee.py", "json.py", "re.py"):
        (workspace.project.folder / name).write_text("open('RAN', 'w')\n")
    assert "a.py:1:one" in use(workspace, "search", pattern="^one$")
    assert not list(workspace.project.folder.glob("RAN"))


@pytest.mark.parametrize("name", ["AGENTS.md", "CLAUDE.md", "sub/AGENTS.md", ".github/x"])
def test_what_governs_the_agent_is_asked_about(workspace: Workspace, name: str) -> None:
    """Instructions of the project are asked about in the mode `edits` too; another text is not (control)."""
    for path, is_sensitive in ((name, True), ("README.md", False)):
        preview = TOOLS["write"].preview({"path": path, "content": "x"}, workspace)
        assert preview.is_sensitive is is_sensitive


def test_credentials_of_the_model_are_withheld(workspace: Workspace) -> None:
    """Those of Bedrock do not reach commands where it has the model; elsewhere they are the tools' own."""
    workspace.environment |= {"AWS_SECRET_ACCESS_KEY": "aws-secret", "ANTHROPIC_API_KEY": "its-key"}
    assert "aws-secret" in use(workspace, "bash", command="env")
    workspace.withheld = WITHHELD_FOR[Provider.BEDROCK]
    said = use(workspace, "bash", command="env")
    assert "aws-secret" not in said
    assert "its-key" not in said
