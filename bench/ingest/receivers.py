"""What is compared: Bailee's service and its peers, each in a folder of its own, on one core."""

import os
import re
import secrets
import sqlite3
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.corpus import CACHE
from bench.gateway.gateways import start_bailee
from bench.gateway.processes import GATEWAY_CORE, StartFailed, find_port, read_end, start, stop, wait_for_port

BUGSINK = CACHE / "bugsink"


@dataclass(frozen=True)
class Receiver:
    """A receiver that answers.

    Attributes:
        headers: give the key to each request, by flow.
        count: how many requests' worth it holds, by flow.
    """

    name: str
    version: str
    about: str
    port: int
    process: "subprocess.Popen[bytes]"
    headers: Callable[[str], tuple[tuple[str, str], ...]]
    count: Callable[[str], int]

    def stop(self) -> None:
        """End it."""
        stop(self.process)


def start_service(place: Path) -> Receiver:
    """Bailee as it ships: key, policy, allow-list, sealed, committed to the disk before the answer."""
    running = start_bailee(place, find_port(), "--intake-rate", "1000000")
    key = dict(running.headers)["x-api-key"]
    assert running.process is not None
    assert running.home is not None
    home = running.home

    def count(flow: str) -> int:
        from bailee.policy.flows import FlowId
        from bailee.vault.reader import list_sessions
        from bailee.vault.store import open_vault

        vault = open_vault(home)
        try:
            return sum(one.exchanges for one in list_sessions(vault, flow=FlowId(flow)))
        finally:
            vault.dispose()

    def headers(flow: str) -> tuple[tuple[str, str], ...]:
        if flow == "errors":
            return (("X-Sentry-Auth", f"Sentry sentry_version=7, sentry_key={key}"),)
        return (("Authorization", f"Bearer {key}"),)

    about = "key, policy, allow-list, sealed, committed before it answers; all its processes on the one core"
    return Receiver("bailee", running.version, about, running.port, running.process, headers, count)


def start_bugsink(place: Path) -> Receiver:
    """Bugsink: one worker; events are digested into SQLite in the request, so that an answer means held."""
    python = BUGSINK / "bin" / "python"
    if not python.exists():
        raise StartFailed("Bugsink is not installed: run bench/setup")
    port = find_port()
    limits = ", ".join(
        f'"MAX_EVENTS_PER_{scope}{span}": 10**9'
        for scope in ("", "PROJECT_PER_")
        for span in ("5_MINUTES", "HOUR", "MONTH")
    )
    (place / "bugsink_conf.py").write_text(
        "from bugsink.settings.default import *\n"
        f'SECRET_KEY = "{secrets.token_hex(32)}"\n'
        f'DATABASES["default"]["NAME"] = "{place}/db.sqlite3"\n'
        f'DATABASES["snappea"]["NAME"] = "{place}/snappea.sqlite3"\n'
        'SNAPPEA = {"TASK_ALWAYS_EAGER": True}\n'
        'EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"\n'
        'ALLOWED_HOSTS = ["*"]\n'
        f'BUGSINK = {{"BASE_URL": "http://127.0.0.1:{port}", "SINGLE_USER": True, "SINGLE_TEAM": True, '
        f'"PHONEHOME": False, "INGEST_STORE_BASE_DIR": "{place}/ingestion", {limits}}}\n'
    )
    environment = {
        "PATH": f"{BUGSINK}/bin:{os.environ['PATH']}",
        "HOME": str(place),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(place),
        "DJANGO_SETTINGS_MODULE": "bugsink_conf",
    }
    key = f"{secrets.randbits(128):032x}"
    project = (
        "from teams.models import Team; from projects.models import Project; import uuid;"
        "team = Team.objects.create(name='bench');"
        f"Project.objects.create(id=1, name='bench', team=team, sentry_key=uuid.UUID('{key}'))"
    )
    manage = str(BUGSINK / "bin" / "bugsink-manage")
    for words in (["migrate"], ["migrate", "--database", "snappea"], ["shell", "-c", project]):
        _run([manage, *words], place, environment)
    command = [str(BUGSINK / "bin" / "gunicorn"), "--bind", f"127.0.0.1:{port}", "--workers", "1"]
    command += ["--keep-alive", "60", "--worker-class", "gthread", "--threads", "4", "bugsink.wsgi"]
    log = place / "log"
    process = start(command, core=GATEWAY_CORE, environment=environment, log=log, directory=place)
    try:
        wait_for_port(port, process, log, 60)
    except StartFailed:
        stop(process)
        raise

    def count(flow: str) -> int:
        with sqlite3.connect(place / "db.sqlite3") as connection:
            return int(connection.execute("SELECT count(*) FROM events_event").fetchone()[0])

    def headers(flow: str) -> tuple[tuple[str, str], ...]:
        return (("X-Sentry-Auth", f"Sentry sentry_version=7, sentry_key={key}"),)

    version = _read_version()
    about = "gunicorn, 1 worker of 4 threads, SQLite, digested before it answers, limits lifted"
    return Receiver("bugsink", version, about, port, process, headers, count)


STARTERS: dict[str, Callable[[Path], Receiver]] = {"bailee": start_service, "bugsink": start_bugsink}
# What each peer takes.
FLOWS = {"bailee": ("metrics", "errors"), "bugsink": ("errors",)}
MISSING = {
    "OpenTelemetry Collector": "no package of it at PyPI, npm or in Debian",
}


def _read_version() -> str:
    found = sorted(BUGSINK.glob("lib/python3*/site-packages/bugsink-*.dist-info"))
    matched = re.search(r"bugsink-(.*)\.dist-info$", str(found[0])) if found else None
    return matched[1] if matched else "unknown"


def _run(command: list[str], place: Path, environment: dict[str, str]) -> None:
    log = place / "log"
    with log.open("ab") as out:
        done = subprocess.run(
            command, env=environment, cwd=place, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False
        )
    if done.returncode:
        raise StartFailed(f"`{' '.join(command[1:3])}` ended with {done.returncode}: {read_end(log)}")
