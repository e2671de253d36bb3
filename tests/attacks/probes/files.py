"""Files, for a command that is confined."""

from pathlib import Path

from attacks.probes.tools import CANARY, FOLDER, attack, succeed

HERE = Path(FOLDER)


@attack("confine")
def outside_the_project() -> None:
    """Nothing outside the project is written."""
    (HERE / "outside" / "file").write_text(CANARY)
    succeed("written outside")


@attack("confine")
def through_a_link() -> None:
    """Nor through a link inside it."""
    link = HERE / "project" / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(HERE / "outside")
    (link / "file").write_text(CANARY)
    succeed("written outside")


@attack("confine")
def hook() -> None:
    """What git runs later, outside, is not written."""
    (HERE / "project" / ".git" / "hooks" / "post-commit").write_text("#!/bin/sh\n")
    succeed("a hook")


@attack("confine")
def git_settings() -> None:
    """Nor what names programs for git to run."""
    with (HERE / "project" / ".git" / "config").open("a") as file:
        file.write("[core]\n\tfsmonitor = /tmp/x\n")
    succeed("git's settings")


@attack("confine")
def key_of_the_user() -> None:
    """Keys of the user are not read."""
    succeed((HERE / ".ssh" / "id").read_text())


@attack("confine")
def password_of_the_user() -> None:
    """Nor are passwords."""
    if text := (HERE / ".netrc").read_text():
        succeed(text)
