"""The gateways that are compared, each in one folder, on one core, in front of the same upstream."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.corpus import CACHE, ROOT
from bench.gateway.processes import (
    GATEWAY_CORE,
    StartFailed,
    find_port,
    read_end,
    start,
    stop,
    wait_for_port,
)

PEERS = CACHE / "peers"
LITELLM_KEY = "sk-bench-litellm"


@dataclass(frozen=True)
class Running:
    """A gateway that answers.

    Attributes:
        process: the root of its processes; None for the direct connection.
        headers: what a client has to send with each request.
        home: the folder where it keeps what it stores, or None if it stores nothing.
    """

    name: str
    about: str
    version: str
    port: int
    process: "subprocess.Popen[bytes] | None"
    headers: tuple[tuple[str, str], ...]
    home: Path | None = None

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            stop(self.process)


# name -> how to start it, given a folder of its own and the upstream's port
Starter = Callable[[Path, int], Running]


def start_direct(place: Path, upstream: int) -> Running:
    """No gateway at all: the ceiling of stub and load generator, which share a core."""
    return Running(
        "direct", "no gateway: the ceiling of stub and generator", "-", upstream, None, _key("none")
    )


def start_nginx(place: Path, upstream: int) -> Running:
    """Nginx as a plain reverse proxy, unbuffered, connections to the upstream kept alive."""
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if binary is None:
        raise StartFailed("nginx is not installed: run bench/setup")
    port = find_port()
    temporary = "\n".join(
        f"    {kind}_temp_path {place}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (place / "nginx.conf").write_text(
        f"""
daemon off;
worker_processes 1;
pid {place}/pid;
error_log {place}/error.log error;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_max_body_size 0;
    keepalive_requests 100000000;
    tcp_nodelay on;
{temporary}
    upstream model {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""
    )
    version = subprocess.run([binary, "-v"], capture_output=True, text=True, check=False).stderr.strip()
    command = [binary, "-p", str(place), "-c", str(place / "nginx.conf"), "-e", str(place / "error.log")]
    process = _start(command, place, {}, port, 10)
    return Running("nginx", "plain reverse proxy", version.rpartition("/")[2], port, process, _key("none"))


def start_litellm(place: Path, upstream: int) -> Running:
    """LiteLLM's proxy: one worker, a master key, no database, no content logging."""
    binary = PEERS / "bin" / "litellm"
    if not binary.exists():
        raise StartFailed("LiteLLM is not installed: run bench/setup")
    port = find_port()
    # JSON is YAML.
    settings = {
        "model_list": [
            {
                "model_name": "*",
                "litellm_params": {
                    "model": "anthropic/*",
                    "api_base": f"http://127.0.0.1:{upstream}",
                    "api_key": "none",
                },
            }
        ],
        "general_settings": {"master_key": LITELLM_KEY, "disable_spend_logs": True},
        "litellm_settings": {"telemetry": False, "turn_off_message_logging": True, "set_verbose": False},
    }
    (place / "config.yaml").write_text(json.dumps(settings, indent=1))
    environment = {
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
    }
    command = [
        str(binary),
        "--config",
        str(place / "config.yaml"),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = _start([*command, "--num_workers", "1", "--telemetry", "False"], place, environment, port, 90)
    about = "proxy, 1 worker, master key, no database, content logging off"
    return Running("litellm", about, read_peer_version("litellm"), port, process, _key(LITELLM_KEY))


def start_bailee(place: Path, upstream: int, *options: str) -> Running:
    """Bailee as it ships: authentication, policy, everything recorded, sealed and committed."""
    port = find_port()
    home = place / "home"
    environment = {"BAILEE_HOME": str(home), "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"}
    bailee = [sys.executable, "-m", "bailee"]
    _run([*bailee, "accounts", "add", "bench", "--plan", "api"], place, environment)
    made = _run([*bailee, "keys", "create", "--account", "bench", "--json"], place, environment)
    key: str = json.loads(made)["key"]
    version = _run([*bailee, "--version"], place, environment).split()[-1]
    address = f"compatible=http://127.0.0.1:{upstream}"
    command = [*bailee, "up", "--host", "127.0.0.1", "--port", str(port), "--upstream", address]
    command += ["--upstream-credential", "none", *options]
    process = _start(command, place, environment, port, 30)
    about = "authentication, policy, full encrypted recording; all its processes on the one core"
    return Running("bailee", about, version, port, process, _key(key), home)


def start_aiohttp(place: Path, upstream: int) -> Running:
    """A pass-through of aiohttp's server and client: no authentication, policy or recording."""
    about = "probe: aiohttp server and client on uvloop, pass-through only"
    return _start_probe("aiohttp", "aiohttp_proxy", about, ("aiohttp", "uvloop"), place, upstream)


def start_uvicorn(place: Path, upstream: int) -> Running:
    """A pass-through of uvicorn (bare ASGI) and aiohttp's client: no authentication, policy or recording."""
    about = "probe: uvicorn (bare ASGI, uvloop, httptools) and aiohttp's client, pass-through only"
    return _start_probe("uvicorn+aiohttp", "uvicorn_proxy", about, ("uvicorn", "aiohttp"), place, upstream)


STARTERS: dict[str, Starter] = {
    "direct": start_direct,
    "nginx": start_nginx,
    "litellm": start_litellm,
    "bailee": start_bailee,
    "aiohttp": start_aiohttp,
    "uvicorn+aiohttp": start_uvicorn,
}


def _start_probe(
    name: str, module: str, about: str, packages: tuple[str, ...], place: Path, upstream: int
) -> Running:
    python = PEERS / "bin" / "python"
    if not python.exists():
        raise StartFailed("aiohttp is not installed: run bench/setup")
    port = find_port()
    command = [
        str(python),
        str(ROOT / "bench" / "gateway" / "probes" / f"{module}.py"),
        str(port),
        str(upstream),
    ]
    process = _start(command, place, {}, port, 20)
    version = ", ".join(f"{package} {read_peer_version(package)}" for package in packages)
    return Running(name, about, version, port, process, _key("none"))


def read_peer_version(package: str) -> str:
    """Return the version of a package that bench/setup installed."""
    name = re.sub(r"[-.]", "_", package)
    found = sorted(PEERS.glob(f"lib/python3*/site-packages/{name}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else "unknown"


def _key(value: str) -> tuple[tuple[str, str], ...]:
    return (("x-api-key", value),)


def _environment(place: Path, extra: dict[str, str]) -> dict[str, str]:
    """A clean environment: no proxies, no credentials, a home of its own."""
    return {"PATH": os.environ["PATH"], "HOME": str(place), "LANG": "C.UTF-8", **extra}


def _start(
    command: list[str], place: Path, extra: dict[str, str], port: int, seconds: float
) -> "subprocess.Popen[bytes]":
    log = place / "log"
    environment = _environment(place, extra)
    process = start(command, core=GATEWAY_CORE, environment=environment, log=log, directory=place)
    try:
        wait_for_port(port, process, log, seconds)
    except StartFailed:
        stop(process)
        raise
    return process


def _run(command: list[str], place: Path, extra: dict[str, str]) -> str:
    log = place / "log"
    with log.open("ab") as errors:
        done = subprocess.run(
            command,
            env=_environment(place, extra),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            check=False,
            timeout=60,
        )
    if done.returncode:
        raise StartFailed(f"`{' '.join(command[1:])}` ended with {done.returncode}: {read_end(log)}")
    return done.stdout
