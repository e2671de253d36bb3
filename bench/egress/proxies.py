"""The proxies that are measured, each a process of its own on one core; all but ours log nothing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.processes import GATEWAY_CORE, StartFailed, find_port, start, stop, wait_for_port

MITMDUMP = Path(".cache/bench/egress/bin/mitmdump")
SECONDS = 20.0


@dataclass
class Proxy:
    """A proxy that runs."""

    name: str
    about: str
    port: int
    host_port: int
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """End it."""
        stop(self.process)


def _begin(name: str, about: str, command: list[str], port: int, host: int, folder: Path) -> Proxy:
    log = folder / "log"
    process = start(command, core=GATEWAY_CORE, environment=dict(os.environ), log=log)
    try:
        wait_for_port(port, process, log, SECONDS)
    except StartFailed:
        stop(process)
        raise
    return Proxy(name, about, port, host, process)


def start_bailee(folder: Path) -> Proxy:
    """Start Bailee's, which notes every tunnel before it dials."""
    port, host = find_port(), find_port()
    command = [sys.executable, "-m", "bench.egress.serving", str(port), str(folder), str(host)]
    return _begin(
        "bailee", "checks, and a sealed row on the disk before it dials", command, port, host, folder
    )


def start_squid(folder: Path) -> Proxy:
    """Start squid: no cache, no access log."""
    program = _find("squid")
    port, host = find_port(), find_port()
    # It gives up root, and then has to write there.
    for place in (folder, folder.parent):
        place.chmod(0o777)
    settings = folder / "squid.conf"
    settings.write_text(
        f"http_port 127.0.0.1:{port}\nhttp_access allow localhost\nhttp_access deny all\n"
        f"acl all_ports port 1-65535\ncache deny all\naccess_log none\ncache_log {folder}/cache.log\n"
        f"pid_filename {folder}/squid.pid\ncoredump_dir {folder}\nnetdb_filename none\n"
        "shutdown_lifetime 0 seconds\nvisible_hostname bench\n"
    )
    return _begin(
        "squid",
        _version(program, "-v"),
        [program, "-n", f"bench{port}", "-N", "-f", str(settings)],
        port,
        host,
        folder,
    )


def start_tinyproxy(folder: Path) -> Proxy:
    """Start tinyproxy: no filter."""
    program = _find("tinyproxy")
    port, host = find_port(), find_port()
    settings = folder / "tinyproxy.conf"
    settings.write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout 600\nAllow 127.0.0.1\nMaxClients 1000\nLogLevel Critical\n"
        f'LogFile "{folder}/tiny.log"\n'
    )
    return _begin(
        "tinyproxy", _version(program, "-v"), [program, "-d", "-c", str(settings)], port, host, folder
    )


def start_mitmproxy(folder: Path) -> Proxy:
    """Start mitmdump, which passes these hosts on without looking into them."""
    if not MITMDUMP.exists():
        raise StartFailed("not installed: run bench/setup")
    port, host = find_port(), find_port()
    command = [str(MITMDUMP.absolute()), "-q", "--listen-host", "127.0.0.1", "-p", str(port)]
    command += ["--ignore-hosts", ".*", "--set", f"confdir={folder}"]
    return _begin("mitmproxy", _version(str(MITMDUMP), "--version"), command, port, host, folder)


STARTERS: Mapping[str, Callable[[Path], Proxy]] = {
    "bailee": start_bailee,
    "squid": start_squid,
    "tinyproxy": start_tinyproxy,
    "mitmproxy": start_mitmproxy,
}


def _find(program: str) -> str:
    found = shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise StartFailed("not installed: run bench/setup")
    return found


def _version(program: str, option: str) -> str:
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0][:60]
