"""Where the service listens, and what it refuses to do."""

import os
import resource
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from counterparts.agents import Agent, exchange, prompt
from counterparts.answers import whole_answer
from counterparts.gates import open_gate
from counterparts.holdings import make_key, read_exchanges
from counterparts.services import clean_environment, serving
from counterparts.upstreams import Upstream
from counterparts.waiting import wait_for


def up(folder: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a service that is expected to refuse."""
    return subprocess.run(
        [sys.executable, "-m", "bailee", "up", "--home", str(folder / "state"), *options],
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])  # noqa: S104
def test_beyond_loopback_it_wants_tls(tmp_path: Path, host: str) -> None:
    """An address others can reach is refused without a certificate, before anything is made."""
    refused = up(tmp_path, "--host", host, "--upstream", "rehearsal")
    assert refused.returncode == 2
    assert "--tls-certificate" in refused.stderr
    assert refused.stdout == ""
    assert not (tmp_path / "state").exists()


REFUSED = {
    "unknown upstream": (["--upstream", "openai"], {}, "use one of anthropic"),
    "no address": (["--upstream", "compatible"], {}, "compatible=https://HOST"),
    "not a URL": (["--upstream", "compatible=ftp://x"], {"BAILEE_UPSTREAM_KEY": "k"}, "http:// or https://"),
    "a key in the URL": (
        ["--upstream", "compatible=http://k@x"],
        {"BAILEE_UPSTREAM_KEY": "k"},
        "credentials",
    ),
    "no key": (["--upstream", "anthropic"], {}, "ANTHROPIC_API_KEY"),
    "no region": (["--upstream", "bedrock"], {}, "AWS_REGION"),
    "half a certificate": (["--upstream", "rehearsal", "--tls-key", "x"], {}, "give both"),
    "no such CA": (
        ["--upstream", "compatible=https://x", "--upstream-ca", "none.pem"],
        {"BAILEE_UPSTREAM_KEY": "k"},
        "--upstream-ca",
    ),
    "a SOCKS proxy": (
        ["--upstream", "compatible=https://x"],
        {"BAILEE_UPSTREAM_KEY": "k", "HTTPS_PROXY": "socks5://127.0.0.1:1"},
        "SOCKS is not supported",
    ),
    **{
        f"a URL like {url}": (
            ["--upstream", f"compatible={url}"],
            {"BAILEE_UPSTREAM_KEY": "k"},
            "http:// or https://",
        )
        for url in ("http://a b", "http://x/\u00e9", "http://[::1", "http://x:0", "http://x:port")
    },
    **{
        f"a proxy like {proxy}": (
            ["--upstream", "compatible=http://127.0.0.1:9"],
            {"BAILEE_UPSTREAM_KEY": "k", "HTTP_PROXY": proxy},
            "HTTP_PROXY",
        )
        for proxy in ("http://127.0.0.1:port", "127.0.0.1:port", "http://a b:1", "http://[::1", "http://x:0")
    },
    "no certificate file": (
        ["--upstream", "rehearsal", "--tls-certificate", "none.pem", "--tls-key", "none.pem"],
        {},
        "--tls-certificate",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_told_with_its_fix(tmp_path: Path, name: str) -> None:
    """A setting that cannot be used ends with 2 and one message that names it and the fix; no traceback."""
    options, environment, told = REFUSED[name]
    refused = up(tmp_path, "--port", "0", *options, **environment)
    assert refused.returncode == 2, refused.stderr
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    """A port that another program has is an error with the fix."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = up(tmp_path, "--upstream", "rehearsal", "--port", str(taken.getsockname()[1]))
    assert refused.returncode == 2
    assert "choose another port" in refused.stderr


def test_one_service_to_a_home(tmp_path: Path) -> None:
    """A second service on the same home is refused; after the first has ended it may start."""
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal"):
        refused = up(tmp_path, "--upstream", "rehearsal", "--port", "0")
        assert refused.returncode == 2
        assert "another service is running" in refused.stderr
    with serving(tmp_path / "state", tmp_path, "--upstream", "rehearsal"):
        pass


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, folders of a home are 0700 and files 0600."""
    with open_gate(tmp_path) as gate, gate.connect() as agent:
        exchange(agent, gate.upstream, "s", "x")
        for path in [gate.home, *gate.home.rglob("*")]:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode == (0o700 if path.is_dir() else 0o600), f"{path} {mode:o}"


def test_standard_output_is_the_url(tmp_path: Path) -> None:
    """The only line on standard output is the URL, also after requests; Ctrl-C ends the service with 0."""
    with open_gate(tmp_path) as gate:
        with gate.connect() as agent:
            exchange(agent, gate.upstream, "s", "x")
        gate.service.process.send_signal(signal.SIGINT)
        assert gate.service.process.wait(20) == 0
        assert gate.service.output == gate.service.url + "\n"
        told, link = gate.service.errors.splitlines()
        assert told.startswith("Bailee serves compatible on ")
        assert link.startswith("The console, once and within ten minutes: http://bailee.localhost:")


def tls_for(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_with_tls_it_speaks_nothing_else(tmp_path: Path) -> None:
    """With a certificate the service answers over TLS, and a request in clear gets no answer."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    chain, key_file = tmp_path / "chain.pem", tmp_path / "key.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key_file)
    home = tmp_path / "state"
    key = make_key(home)
    options = ("--tls-certificate", str(chain), "--tls-key", str(key_file))
    with Upstream() as upstream:
        upstream_options = ("--upstream", f"compatible={upstream.url}", "--upstream-credential", "none")
        with serving(home, tmp_path, *upstream_options, *options) as service:
            assert service.url.startswith("https://")
            trusting = ssl.create_default_context()
            authority.configure_trust(trusting)
            with Agent(service, key, tls=trusting) as agent:
                assert exchange(agent, upstream, "tls", "x").is_whole
            with pytest.raises(ssl.SSLCertVerificationError):
                Agent(service, key, tls=ssl.create_default_context())
            with socket.create_connection(service.address) as clear:
                clear.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                clear.settimeout(5)
                try:
                    answer = clear.recv(1024)
                except ConnectionResetError:
                    answer = b""
            assert not answer.startswith(b"HTTP")


def test_the_upstream_is_checked_and_shown_our_certificate(tmp_path: Path) -> None:
    """An https upstream must be certified by a trusted CA and sees the client certificate we were given."""
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    client = authority.issue_cert("bailee.example")
    chain, key_file = tmp_path / "client.pem", tmp_path / "client.key"
    client.cert_chain_pems[0].write_to_path(chain)
    client.private_key_pem.write_to_path(key_file)
    context = tls_for(authority, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    home = tmp_path / "state"
    key = make_key(home)
    with Upstream(context) as upstream:
        options = ["--upstream", f"compatible={upstream.url}", "--upstream-credential", "none"]
        mutual = ["--upstream-certificate", str(chain), "--upstream-certificate-key", str(key_file)]
        trusted = (*options, *mutual, "--upstream-ca", str(ca_file))
        with serving(home, tmp_path, *trusted) as service, Agent(service, key) as agent:
            agent.ask("mutual", prompt("x", stream=False))
            visit = upstream.accept()
            assert isinstance(visit.socket, ssl.SSLSocket)
            subject = dict(visit.socket.getpeercert()["subjectAltName"])  # type: ignore[index,arg-type]
            assert subject == {"DNS": "bailee.example"}
            visit.read_request()
            visit.send(whole_answer("certified"))
            assert agent.read_answer().status == 200
            visit.close()
        with serving(home, tmp_path, *options, *mutual) as service, Agent(service, key) as agent:
            agent.ask("untrusted", prompt("x"))
            with pytest.raises((ssl.SSLError, OSError)):
                upstream.accept()
            answer = agent.read_answer()
            assert answer.status == 502
            assert "certificate was not accepted" in answer.error[1]
    assert read_exchanges(home, "untrusted")[0].state == "upstream_failed"


def test_a_proxy_is_gone_through(tmp_path: Path) -> None:
    """HTTPS_PROXY leads through a tunnel, with the proxy's own credentials; NO_PROXY exempts from it."""
    authority = trustme.CA()
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    home = tmp_path / "state"
    key = make_key(home)
    with Upstream(tls_for(authority, "localhost")) as upstream, Upstream() as proxy:
        options = ["--upstream", f"compatible={upstream.url}", "--upstream-credential", "none"]
        options += ["--upstream-ca", str(ca_file)]
        through = {"HTTPS_PROXY": f"http://user:p%40ss@127.0.0.1:{proxy.port}"}
        with serving(home, tmp_path, *options, environment=through) as service, Agent(service, key) as agent:
            agent.ask("proxied", prompt("x", stream=False))
            visit = proxy.accept()
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += visit.socket.recv(1)
            assert head.startswith(f"CONNECT localhost:{upstream.port} HTTP/1.1\r\n".encode())
            assert b"Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in head
            visit.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            visit.socket = tls_for(authority, "localhost").wrap_socket(visit.socket, server_side=True)
            _, body = visit.read_request()
            assert b'"x"' in body
            visit.send(whole_answer("through the tunnel"))
            assert b"through the tunnel" in agent.read_answer().body
            visit.close()
        exempt = {**through, "NO_PROXY": "localhost"}
        with serving(home, tmp_path, *options, environment=exempt) as service, Agent(service, key) as agent:
            assert exchange(agent, upstream, "direct", "x").is_whole
        assert not proxy.has_visitor()
        with serving(home, tmp_path, *options, environment=through) as service, Agent(service, key) as agent:
            agent.ask("refused", prompt("x"))
            visit = proxy.accept()
            visit.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            answer = agent.read_answer()
            visit.close()
            assert answer.status == 502
            assert "407" in answer.error[1]


def test_a_damaged_vault_is_told_and_not_touched(tmp_path: Path) -> None:
    """A vault that is none stops the start with the file's name; its bytes stay as they were."""
    home = tmp_path / "state"
    make_key(home)
    (home / "vault").mkdir(mode=0o700)
    vault = home / "vault" / "vault.db"
    vault.write_bytes(b"not a database" * 1000)
    refused = up(tmp_path, "--upstream", "rehearsal", "--port", "0")
    assert refused.returncode == 2
    assert str(vault) in refused.stderr
    assert "Traceback" not in refused.stderr
    assert vault.read_bytes() == b"not a database" * 1000


def test_what_a_kill_left_is_not_believed(tmp_path: Path) -> None:
    """The state file of a killed service is not taken for a running one."""
    from bailee.service.running import find_running

    with open_gate(tmp_path) as gate:
        assert find_running(gate.home) is not None
        os.kill(gate.service.process.pid, signal.SIGKILL)
        gate.service.process.wait()
        assert (gate.home / "service.json").exists()
        # A child of it that is just starting holds the lock for a moment longer, until it is another program.
        wait_for("the lock to be free", lambda: find_running(gate.home) is None)


def allow_core_files() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


@pytest.mark.parametrize("is_protected", [True, False], ids=["protected", "control"])
def test_no_core_file_can_hold_a_conversation(tmp_path: Path, is_protected: bool) -> None:
    """Service and recorder may write no core file, whatever the shell allows; unprotected they may.

    What the limit does not reach is in `test_dumps.py`.
    """
    changes = "" if is_protected else "import resource\nresource.setrlimit = lambda *_: None\n"
    home = tmp_path / "state"
    with serving(
        home, tmp_path, "--upstream", "rehearsal", changes=changes, before=allow_core_files
    ) as service:
        for process in (service.process.pid, service.recorder):
            limit, _ = resource.prlimit(process, resource.RLIMIT_CORE)
            assert (limit == 0) is is_protected
