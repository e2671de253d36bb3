"""What README and documentation tell a new user to type works as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from counterparts.programs import run_program, start_program
from counterparts.projects import git as run_git
from counterparts.services import clean_environment, serving
from counterparts.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def words_after(start: str) -> list[str]:
    """Return the words of the README's one command that begins so."""
    (found,) = re.findall(rf"(?:^\$ |`)bailee ({re.escape(start)}\b[^`\n]*)", README, re.MULTILINE)
    return found.split()


@pytest.mark.parametrize("name", ["me", "ada"])
def test_the_login_of_the_readme(tmp_path: Path, name: str) -> None:
    """Its four commands, by one user: logged in. With another name than `me` the approval is refused, and
    what proves the holder is told when the account is added (control)."""
    home = tmp_path / "home"
    environment = clean_environment(tmp_path, BAILEE_HOME=str(home))

    def run(words: list[str], *more: str) -> "subprocess.CompletedProcess[str]":
        given = [name if word == "me" else word for word in words]
        return run_program(*given, *more, environment=environment, folder=tmp_path)

    added = run(words_after("accounts add me"))
    assert added.stdout.startswith(f"Added {name}, plan api")
    assert (f"bailee keys create --account {name} --for-holder" in added.stderr) is (name != "me")
    assert run(words_after("keys create --account me")).stdout.startswith("bailee_")
    with serving(home, tmp_path / "service", "--upstream", "rehearsal") as service:
        told = tmp_path / "told"
        with told.open("wb") as file:
            login = start_program(
                *words_after("login"),
                *("--service", service.url),
                environment=environment,
                folder=tmp_path,
                stdout=file,
                stderr=file,
            )
        code = wait_for("a code", lambda: re.search(r"approve ([A-Z]{4}-[A-Z]{4})", told.read_text()))[1]
        words = [code if word == "CODE" else word for word in words_after("logins approve")]
        approved = run(words, "--yes")
        if name == "me":
            assert approved.returncode == 0, approved.stderr
            assert login.wait(60) == 0
            assert "Logged in to me, plan api" in told.read_text()
            return
        assert approved.returncode == 2
        assert "the account holder alone approves a login" in approved.stderr
        run(["logins", "deny", code])
        assert login.wait(60) == 2


def test_the_repository_for_the_script_that_mends(tmp_path: Path) -> None:
    """Pasted into a shell as it stands, the agent mends the fault and commits; elsewhere the script says
    where the files are (control)."""
    page = (ROOT / "docs" / "agents.md").read_text()
    found = re.search(r"^    mkdir calculator.*?mend-the-test\"$", page, re.MULTILINE | re.DOTALL)
    assert found
    assert "(docs/agents.md#the-rehearsal-model)" in README
    environment = clean_environment(tmp_path)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", dedent(found[0])],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "The test passes now." in done.stdout
    project = tmp_path / "calculator"
    assert "return a + b" in (project / "calculator.py").read_text()
    log = run_git(project, "log", "--format=%s")
    assert log.splitlines() == ["Make add add", "A calculator with a bug"]
    words = ("code", "--model", "rehearsal", "--mode", "all", "-p", "rehearse mend-the-test")
    elsewhere = run_program(*words, environment=environment, folder=tmp_path)
    assert "docs/agents.md has them" in elsewhere.stdout
