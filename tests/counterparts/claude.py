"""Claude Code, the real one, in an environment that holds nothing but what it needs."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
BINARY = ROOT / "node_modules" / "@anthropic-ai" / f"claude-code-linux-{_MACHINE}" / "claude"
TOOLS = "Bash,Read,Edit,Write,Glob,Grep"
SECONDS = 180


def make_environment(home: Path, **more: str) -> dict[str, str]:
    """Return an environment with an empty home and no way to anything but loopback services."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "CLAUDE_CODE_TMPDIR": str(home),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "1",
        **more,
    }


def command(prompt: str, *options: str) -> list[str]:
    """Return the command that lets it work on a prompt without a terminal."""
    assert BINARY.is_file(), f"{BINARY} is missing: run `make setup` where npm is installed"
    return [str(BINARY), "-p", prompt, "--allowedTools", TOOLS, *options]


def run(
    prompt: str, project: Path, environment: Mapping[str, str], *options: str
) -> subprocess.CompletedProcess[str]:
    """Let it work on a prompt, to its end."""
    return subprocess.run(
        command(prompt, *options),
        cwd=project,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def make_project(project: Path, files: Mapping[str, str]) -> None:
    """Make a Git repository with these files."""
    project.mkdir(parents=True)
    for name, text in files.items():
        (project / name).write_text(text)
    steps: Sequence[Sequence[str]] = (
        ("init", "-q", "-b", "main"),
        ("config", "user.name", "Test"),
        ("config", "user.email", "test@example.invalid"),
        ("add", "."),
        ("commit", "-q", "-m", "as it was"),
    )
    for arguments in steps:
        subprocess.run(["git", *arguments], cwd=project, check=True)
