"""The main job, shown: a real agent's session under custody, its decisions and its receipt.

Everything happens in a temporary folder, on this machine, with the rehearsal model; nothing is left running
and nothing is left behind unless `--keep` asks for it.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bailee.manifests import load_manifest

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Please mend the failing test in this project and commit the change."
CALCULATOR = '''"""A very small calculator."""


def add(a: int, b: int) -> int:
    """Return the sum."""
    return a - b
'''
TEST = """import unittest

from calculator import add


class AddTest(unittest.TestCase):
    def test_adds(self) -> None:
        self.assertEqual(add(2, 3), 5)


if __name__ == "__main__":
    unittest.main()
"""


def main() -> int:
    """Run the demonstration; 0 if the agent mended the project through the service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the folder, to look into afterwards")
    keep = parser.parse_args().keep
    folder = Path(tempfile.mkdtemp(prefix="bailee-demo-"))
    try:
        return demonstrate(folder)
    finally:
        if keep:
            say(f"Kept: {folder} (look: BAILEE_HOME={folder}/state bailee sessions list)")
        else:
            shutil.rmtree(folder)


def demonstrate(folder: Path) -> int:
    """Make a project with a failing test, let an agent mend it, and show what was decided and held."""
    project = folder / "project"
    make_project(project)
    environment = {
        # Nothing of the user's own: no credentials, no settings, no agent's history.
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder / "user"),
        "BAILEE_HOME": str(folder / "state"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        # Else Claude Code leaves a folder in /tmp.
        "CLAUDE_CODE_TMPDIR": str(folder / "user"),
    }
    (folder / "user").mkdir()
    bailee = [sys.executable, "-m", "bailee"]

    agent, command = choose_agent()
    say(f"1. {agent} works on a project with a failing test; the model is the rehearsal model.")
    run = [
        *bailee,
        "run",
        "--upstream",
        "rehearsal",
        "--receipt",
        str(folder / "receipt.json"),
        "--",
        *command,
    ]
    status = subprocess.run(
        run, cwd=project, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode
    if status != 0:
        say(f"The agent ended with status {status}.")
        return 1

    say("2. What it did.")
    show(["git", "log", "--oneline", "--stat", "-1"], project, environment)
    is_mended = show([sys.executable, "-B", "-m", "unittest", "-q"], project, environment) == 0

    say("3. What is held of it, in clear only to who holds the keys.")
    show([*bailee, "sessions", "list"], project, environment)

    say("4. Why: the decisions for this agent as it ran (`bailee explain FLOW` tells one in full).")
    name = "claude-code" if agent.startswith("Claude") else "bailee"
    as_it_ran = environment | load_manifest(name).launch.essential_only
    show([*bailee, "explain", "--brief", "--agent", name], project, as_it_ran)
    show([*bailee, "explain", "messages", "--agent", name], project, as_it_ran)

    say("5. In clear on disk: " + ("nothing." if not find_in_clear(folder / "state") else "SOMETHING!"))
    return 0 if is_mended and not find_in_clear(folder / "state") else 1


def make_project(project: Path) -> None:
    """Make a Git repository with a bug and a test that finds it."""
    project.mkdir()
    (project / "calculator.py").write_text(CALCULATOR)
    (project / "test_calculator.py").write_text(TEST)
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "Demo"),
        ("config", "user.email", "demo@example.invalid"),
        ("add", "."),
        ("commit", "-q", "-m", "A calculator with a bug"),
    ):
        subprocess.run(["git", *arguments], cwd=project, check=True)


def choose_agent() -> tuple[str, list[str]]:
    """Return Claude Code where its package is installed, else a scripted client of the official SDK."""
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
    binary = ROOT / "node_modules" / "@anthropic-ai" / f"claude-code-linux-{machine}" / "claude"
    if binary.is_file():
        allowed = "Bash,Read,Edit,Write,Glob,Grep"
        return "Claude Code", [str(binary), "-p", PROMPT, "--allowedTools", allowed]
    say("(Claude Code is not installed here: a scripted client of the official SDK takes its place.)")
    return "A scripted client", [sys.executable, str(ROOT / "scripts" / "scripted_agent.py"), PROMPT]


def find_in_clear(state: Path) -> list[Path]:
    """Return the files that hold a piece of the conversation in clear."""
    pieces = (PROMPT.encode(), b"return a - b", b"very small calculator")
    return [
        path
        for path in state.rglob("*")
        if path.is_file() and any(piece in path.read_bytes() for piece in pieces)
    ]


def show(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Run a command and let its output through."""
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def say(text: str) -> None:
    """Write a line of the demonstration itself."""
    print(f"\n{text}" if text[0].isdigit() else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
