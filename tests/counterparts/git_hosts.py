"""A Git host: git's own `http-backend` behind Basic credentials, with what it was asked, over HTTP or TLS."""

import base64
import contextlib
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

USER, TOKEN = "x-access-token", "ghp_the-real-credential-of-the-host-0001"
# Commits of tests are the same whoever runs them, and look at no configuration of theirs.
AUTHOR = {
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.invalid",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.invalid",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
}


@dataclass
class GitHost:
    """A host that runs.

    Attributes:
        folder: its repositories, bare.
        asked: method, path and Authorization of each request.
        answers: what it answers in place of Git, by path.
        accepts: whether a token opens it besides the one that is `accepted`.
        api: what answers below /api/; None where there is nothing.
    """

    folder: Path
    url: str
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    accepted: str = TOKEN
    accepts: Callable[[str], bool] = lambda token: False
    api: Callable[[BaseHTTPRequestHandler], None] | None = None

    def add(self, name: str, files: Mapping[str, str], *, object_format: str = "sha1") -> str:
        """Make a repository with one commit on `main`, and return its address."""
        work = self.folder / f"{name}-work"
        git("init", "-q", "-b", "main", f"--object-format={object_format}", str(work))
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git("add", "-A", cwd=work)
        git("commit", "-q", "-m", "first", cwd=work)
        bare = self.folder / f"{name}.git"
        git("clone", "-q", "--bare", str(work), str(bare))
        for key, value in (
            ("http.receivepack", "true"),
            ("receive.advertisePushOptions", "true"),
            ("uploadpack.allowFilter", "true"),
        ):
            git("config", key, value, cwd=bare)
        return f"{self.url}/{name}.git"

    def to_header(self) -> str:
        """Return the Authorization that opens its repositories."""
        return "Basic " + base64.b64encode(f"{USER}:{self.accepted}".encode()).decode()

    def refs(self, name: str) -> dict[str, str]:
        """Return the refs of a repository."""
        told = git("for-each-ref", "--format=%(refname) %(objectname)", cwd=self.folder / f"{name}.git")
        return dict(line.split() for line in told.splitlines())


def git(*words: str, cwd: Path | None = None, check: bool = True, **more: str) -> str:
    """Run git as tests do and return its output, errors included."""
    done = subprocess.run(
        ["git", *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], "HOME": "/nowhere", "LANG": "C.UTF-8", **AUTHOR, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


class _Server(ThreadingHTTPServer):
    """Ends TLS as it is to be ended: GnuTLS, with which git may be built, takes anything else for a fault."""

    def shutdown_request(self, request: Any) -> None:
        if isinstance(request, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                request.settimeout(1)
                request.unwrap()
        super().shutdown_request(request)


def run_git_host(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[GitHost]:
    """Give a host that runs on loopback."""
    folder.mkdir(exist_ok=True)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_PUT(self) -> None:
            self._answer()

        def do_PATCH(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def log_message(self, *arguments: Any) -> None:
            pass

        def _answer(self) -> None:
            told = self.headers.get("authorization")
            host.asked.append((self.command, self.path, told))
            self.close_connection = True
            is_api = self.path.startswith("/api/") or self.headers.get("host") == "api.github.com"
            if is_api and host.api is not None:
                host.api(self)
                return
            if (other := host.answers.get(urlsplit(self.path).path)) is not None:
                other(self)
                return
            token = _read_token(told or "")
            if token != host.accepted and not host.accepts(token):
                self.send_response(401)
                self.send_header("www-authenticate", 'Basic realm="host"')
                self.send_header("content-length", "0")
                self.end_headers()
                return
            self._run()

        def _run(self) -> None:
            parts = urlsplit(self.path)
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(host.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "PATH_INFO": parts.path,
                "QUERY_STRING": parts.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
                "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
                "REMOTE_USER": "ada",
            }
            if length := self.headers.get("content-length"):
                environment["CONTENT_LENGTH"] = length
            process = subprocess.Popen(
                ["git", "http-backend"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert process.stdin is not None
            assert process.stdout is not None
            feeding = threading.Thread(target=self._feed, args=(process.stdin,))
            feeding.start()
            status, headers = 200, []
            while line := process.stdout.readline().strip():
                name, _, value = line.decode().partition(": ")
                if name == "Status":
                    status = int(value.split()[0])
                else:
                    headers.append((name, value))
            with contextlib.suppress(OSError):  # whoever asked has gone
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("connection", "close")
                self.end_headers()
                while data := process.stdout.read(65536):
                    self.wfile.write(data)
            process.stdout.close()
            feeding.join()
            process.wait()

        def _feed(self, pipe: Any) -> None:
            try:
                for piece in read_pieces(self):
                    pipe.write(piece)
            except OSError:
                pass
            finally:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    server = _Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls is not None else "http"
    host = GitHost(folder, f"{scheme}://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield host
    server.shutdown()
    server.server_close()


def _read_token(told: str) -> str:
    scheme, _, coded = told.partition(" ")
    user, _, token = base64.b64decode(coded).decode().partition(":") if scheme == "Basic" else ("", "", "")
    return token if user == USER else ""


def read_pieces(request: BaseHTTPRequestHandler) -> Iterator[bytes]:
    """Give the body of a request, chunked or of a length.

    Raises:
        ConnectionError: it ended before its end.
    """
    if request.headers.get("transfer-encoding", "").lower() == "chunked":
        while size := _read_size(request.rfile.readline()):
            yield request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return
    left = int(request.headers.get("content-length") or 0)
    while left:
        if not (piece := request.rfile.read(min(left, 65536))):
            raise ConnectionResetError("a body is cut off")
        left -= len(piece)
        yield piece


def _read_size(line: bytes) -> int:
    if not line:
        raise ConnectionResetError("a body is cut off")
    return int(line, 16)
