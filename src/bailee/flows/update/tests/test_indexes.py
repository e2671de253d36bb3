"""Asking a package index, a real HTTP server here, and what it gets to know."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from packaging.version import Version

from bailee.flows.update.indexes import choose_index, newest, tell_host
from counterparts.programs import run_program
from counterparts.services import clean_environment

FILES = ["bailee-0.1.0.tar.gz", "bailee-9.9.0-py3-none-any.whl", "bailee-10.0rc1.tar.gz", "x.exe"]


class Index:
    """A package index on a free port that remembers what it was asked."""

    def __init__(self, kind: str, body: bytes, status: int = 200) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://user:SECRET@127.0.0.1:{self._server.server_port}/simple"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def page(*files: str, yanked: str = "") -> bytes:
    listed = [{"filename": name, "yanked": name == yanked} for name in files]
    return msgspec.json.encode({"meta": {"api-version": "1.1"}, "name": "bailee", "files": listed})


JSON = "application/vnd.pypi.simple.v1+json"
LINKS = "".join(f'<a href="/{name}#sha256=0" >{name}</a><br>' for name in FILES).encode()


@pytest.fixture
def opened() -> Iterator[list[Index]]:
    indexes: list[Index] = []
    yield indexes
    for index in indexes:
        index.close()


def check(index: Index, folder: Path, *words: str, **environment: str) -> Any:
    whole = clean_environment(folder, PIP_INDEX_URL=index.url, **environment)
    return run_program("update", "--check", *words, environment=whole, folder=folder)


@pytest.mark.parametrize(("kind", "body"), [(JSON, page(*FILES)), ("text/html; charset=utf-8", LINKS)])
def test_a_newer_version_is_told(tmp_path: Path, opened: list[Index], kind: str, body: bytes) -> None:
    """The newest release is named, in both forms of the index, pre-releases left out."""
    opened.append(index := Index(kind, body))
    told = msgspec.json.decode(check(index, tmp_path, "--json").stdout)
    assert (told["newest"], told["is_newest"]) == ("9.9.0", False)
    assert "pip install -U bailee" in check(index, tmp_path).stdout


def test_the_index_gets_to_know_the_name_and_nothing_else(tmp_path: Path, opened: list[Index]) -> None:
    """One request, for the package; its headers hold no version, no system and nothing of the user."""
    opened.append(index := Index(JSON, page(*FILES)))
    done = check(index, tmp_path)
    ((path, headers),) = index.asked
    assert path == "/simple/bailee/"
    assert headers.keys() <= {
        "accept",
        "accept-encoding",
        "connection",
        "host",
        "user-agent",
        "authorization",
    }
    assert headers["user-agent"] == "bailee"
    assert "SECRET" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "switch", ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_AUTOUPDATER", "CLAUDE_CODE_USE_BEDROCK"]
)
def test_switched_off_it_asks_nobody(tmp_path: Path, opened: list[Index], switch: str) -> None:
    """With non-essential traffic off, or on a provider where it is off, nobody is asked, and that is told."""
    opened.append(index := Index(JSON, page(*FILES)))
    done = check(index, tmp_path, **{switch: "1"})
    assert done.returncode == 2
    assert "switched off" in done.stderr
    assert index.asked == []
    assert check(index, tmp_path).returncode == 0  # control
    assert len(index.asked) == 1


def test_yanked_and_older_versions_are_no_news(tmp_path: Path, opened: list[Index]) -> None:
    """What was withdrawn is not recommended."""
    opened.append(index := Index(JSON, page(*FILES, yanked="bailee-9.9.0-py3-none-any.whl")))
    assert "is the newest version" in check(index, tmp_path).stdout


@pytest.mark.parametrize(
    ("kind", "body", "status", "told"),
    [(JSON, b"{", 200, "cannot be understood"), (JSON, b"", 404, "answered 404")],
)
def test_what_an_index_gives_wrong_is_told(
    tmp_path: Path, opened: list[Index], kind: str, body: bytes, status: int, told: str
) -> None:
    """An answer that cannot be used ends with 2, naming the host and no credential."""
    opened.append(index := Index(kind, body, status))
    done = check(index, tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "127.0.0.1" in done.stderr
    assert "SECRET" not in done.stderr


def test_which_index_is_asked() -> None:
    """The variables of pip and uv come before pip's configuration, and that before the public index."""
    assert choose_index({}, lambda: "") == "https://pypi.org/simple"
    assert choose_index({}, lambda: "https://a/simple") == "https://a/simple"
    assert choose_index({"PIP_INDEX_URL": "https://b"}, lambda: "https://a/simple") == "https://b"
    assert tell_host("https://u:p@h:1/x") == "h:1"


def test_who_has_a_pre_release_is_told_of_the_next() -> None:
    """Pre-releases count for who has one."""
    versions = [Version("1.0"), Version("2.0rc1")]
    assert newest(versions, Version("1.0")) is None
    assert newest(versions, Version("1.1b1")) == Version("2.0rc1")
