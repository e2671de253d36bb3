"""What a repository brings with it does not run, is not followed out of it, and chooses no destination."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee.agent.editing import write_setting
from bailee.agent.prompts import find_instructions
from bailee.agent.settings import read_settings
from bailee.agent.tools.failures import Failed
from bailee.agent.tools.paths import Project
from bailee.cli.code import read_argument
from bailee.cli.update import make_opener
from bailee.files import leftover, replace_file
from bailee.manifests import load_manifest
from bailee.manifests.settings import read_layers
from bailee.policy.layers import LayerName
from bailee.policy.problems import Problem
from counterparts.programs import run_program
from counterparts.services import clean_environment


@pytest.fixture
def listening() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Give a URL, and what is asked there with which credential; `/away` leads to another host."""
    asked: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            if self.path.startswith("/away"):
                self.send_response(302)
                self.send_header("Location", f"http://localhost:{server.server_address[1]}/there")
            elif self.path.startswith("/near"):
                self.send_response(302)
                self.send_header("Location", "/there")
            else:
                self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_a_projects_pip_is_not_run(tmp_path: Path, listening: tuple[str, list[object]]) -> None:
    """A file of that name in the working folder is not the installer, and chooses no index."""
    url, asked = listening
    (tmp_path / "pip.py").write_text(f"open('ran', 'w').close()\nprint('{url}/evil')\n")
    environment = clean_environment(tmp_path, https_proxy="http://127.0.0.1:1", http_proxy="")
    run_program("update", "--check", environment=environment, folder=tmp_path)
    assert not (tmp_path / "ran").exists()
    assert asked == []
    # Control: asked for without care it is what runs.
    subprocess.run([sys.executable, "-m", "pip"], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "ran").exists()


def test_an_index_leads_nobody_elsewhere(listening: tuple[str, list[tuple[str, str | None]]]) -> None:
    """To another page of its own it may lead (control); to another host nothing goes."""
    import urllib.error
    import urllib.request

    url, asked = listening
    send = make_opener({})
    with pytest.raises(urllib.error.HTTPError):
        send(urllib.request.Request(f"{url}/away", headers={"Authorization": "Basic x"}), 5)
    assert [path for path, _ in asked] == ["/away"]
    send(urllib.request.Request(f"{url}/near"), 5).close()
    assert [path for path, _ in asked][1:] == ["/near", "/there"]


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    """A link beside a file, by the name that a new version of it is written under, is taken away."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    path = tmp_path / "settings.json"
    leftover(path).symlink_to(victim)
    replace_file(path, b"new")
    assert (victim.read_text(), path.read_bytes(), path.is_symlink()) == ("kept", b"new", False)


def test_a_projects_settings_do_not_lead_out_of_it(tmp_path: Path) -> None:
    """Its settings folder may be no link to another place; without one the setting is written (control)."""
    outside, project = tmp_path / "outside", tmp_path / "project"
    outside.mkdir()
    project.mkdir()
    (outside / "settings.json").write_text("{}")
    (project / ".bailee").symlink_to(outside)
    with pytest.raises(Problem) as refused:
        write_setting(LayerName.PROJECT, "telemetry", "off", directory=project, environment={})
    assert "out of the project" in refused.value.what
    assert (outside / "settings.json").read_text() == "{}"
    (project / ".bailee").unlink()
    path = write_setting(LayerName.PROJECT, "telemetry", "off", directory=project, environment={})
    assert json.loads(path.read_text()) == {"telemetry": "off"}


@pytest.mark.parametrize("broken", ["file", "folder", "no folder"])
def test_settings_that_are_gone_are_not_none(tmp_path: Path, broken: str) -> None:
    """A link that leads nowhere, and a file where the folder should be, are unreadable settings."""
    folder = tmp_path / "config" / "bailee"
    folder.parent.mkdir()
    if broken == "file":
        folder.mkdir()
        (folder / "settings.json").symlink_to(tmp_path / "nowhere")
    elif broken == "folder":
        folder.symlink_to(tmp_path / "nowhere")
    else:
        folder.write_text("")
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    with pytest.raises(Problem) as refused:
        read_layers(load_manifest("bailee"), environment=environment, directory=tmp_path)
    assert refused.value.fix


def test_instructions_do_not_lead_out_of_the_project(tmp_path: Path) -> None:
    """A link to a file elsewhere is told and not sent; one inside the project is read (control)."""
    project = tmp_path / "project"
    (project / ".git").mkdir(parents=True)
    (tmp_path / "secret").write_text("SECRET")
    (project / "AGENTS.md").symlink_to(tmp_path / "secret")
    with pytest.raises(Problem) as refused:
        find_instructions(project, None)
    assert "out of the project" in refused.value.what
    (project / "AGENTS.md").unlink()
    (project / "real.md").write_text("Be kind.")
    (project / "AGENTS.md").symlink_to("real.md")
    assert [one.text for one in find_instructions(project, None)] == ["Be kind."]


def test_a_prompt_that_is_no_text_does_not_end_the_agent() -> None:
    """Bytes of another encoding become marks, and what is text stays (control)."""
    assert read_argument("caf\udce9 au lait") == "caf\ufffd au lait"
    assert read_argument("café") == "café"


@pytest.mark.parametrize("name", ["~nosuchuser/x", "a\0b"])
def test_a_path_that_is_none_is_told_to_the_model(tmp_path: Path, name: str) -> None:
    """It ends the call and not the agent; one that is a path is found (control)."""
    project = Project.at(tmp_path)
    with pytest.raises(Failed, match="no such path"):
        project.locate(name)
    assert project.locate("a") == tmp_path.resolve() / "a"


def test_settings_of_the_repositorys_root_count(tmp_path: Path) -> None:
    """Started in a sub folder, what the root's file refuses is refused; outside the repository it is not."""
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    (root / "deep" / "er").mkdir(parents=True)
    (root / ".bailee").mkdir()
    (root / ".bailee" / "settings.json").write_text(
        json.dumps({"telemetry": "off", "permissions": {"deny": ["bash"]}})
    )
    environment = {"HOME": str(tmp_path / "user")}
    for folder in (root, root / "deep", root / "deep" / "er"):
        settings = read_settings(directory=folder, environment=environment, root=tmp_path)
        assert settings["telemetry"] == "off"
        assert list(settings["permissions.deny"]) == ["bash"]
    (tmp_path / "beside").mkdir()
    beside = read_settings(directory=tmp_path / "beside", environment=environment, root=tmp_path)
    assert beside["telemetry"] == "on"


def test_the_agents_environment_is_closed_to_its_commands() -> None:
    """A process that forbade dumps cannot be read under /proc by its own user; another can (control)."""
    # Root reads everything: as root the process becomes an ordinary user first.
    script = (
        "import ctypes, os, subprocess, sys\n"
        "from bailee.dumps import forbid_dumps\n"
        "if os.geteuid() == 0:\n"
        "    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "if sys.argv[1] == 'closed':\n"
        "    forbid_dumps()\n"
        "command = ['cat', f'/proc/{os.getpid()}/environ']\n"
        "done = subprocess.run(command, capture_output=True, text=True, cwd='/', env={'PATH': os.defpath})\n"
        "print('SECRET-KEY' in done.stdout)\n"
    )
    for how, is_read in (("closed", "False"), ("open", "True")):
        done = subprocess.run(
            [sys.executable, "-c", script, how],
            env={"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": "SECRET-KEY"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == is_read
