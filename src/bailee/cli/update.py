"""`bailee update`: whether there is a newer version."""

import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from bailee import __version__
from bailee.cli.options import echo_json, with_json, working_folder
from bailee.policy.problems import Problem

if TYPE_CHECKING:
    from bailee.flows.update.indexes import Opener

PACKAGE = "bailee"


@click.command()
@click.option("--check", is_flag=True, required=True, help="Ask the package index. Nothing is installed.")
@with_json
def update(check: bool, as_json: bool) -> None:
    """Ask the package index whether there is a newer version, and send it nothing but the package's name.

    It is the index that pip installs from on this machine. Switched off with all non-essential traffic.
    Exit codes: 0 told, 2 it is switched off or the index cannot be asked.
    """
    from packaging.version import Version

    from bailee.agent.settings import AGENT, read_settings
    from bailee.flows.update.indexes import choose_index, fetch_versions, newest, tell_host
    from bailee.manifests import load_manifest
    from bailee.policy.decisions import decide
    from bailee.policy.flows import FlowId

    settings = read_settings(directory=working_folder())
    decision = decide(load_manifest(AGENT).flow(FlowId.UPDATE), settings.context())
    if not decision.allowed:
        raise Problem(
            f"the update check is switched off: {decision.rules[0].text}",
            where=decision.decided_by,
            fix="see: bailee explain update",
        )
    environment = {**settings.environment, **os.environ}
    index = choose_index(environment, read_pip_index)
    found = newest(fetch_versions(index, PACKAGE, make_opener(environment)), Version(__version__))
    if as_json:
        told = {"present": __version__, "newest": str(found or __version__), "is_newest": found is None}
        echo_json({**told, "asked": tell_host(index)})
    elif found is None:
        click.echo(f"{PACKAGE} {__version__} is the newest version at {tell_host(index)}.")
    else:
        click.echo(f"There is {PACKAGE} {found}; this is {__version__}. Install it: pip install -U {PACKAGE}")


def read_pip_index() -> str:
    """Return the index in pip's own configuration; empty if it names none, or there is no pip."""
    # Without -P modules are looked for in the working folder first: a repository's pip.py would run.
    command = [sys.executable, "-P", "-m", "pip", "config", "get", "global.index-url"]
    try:
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows an index to another page of its own; no other host is told what is asked, or a password."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        asked, new = urlsplit(req.full_url), urlsplit(newurl)
        if (asked.scheme, asked.netloc) != (new.scheme, new.netloc):
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def make_opener(environment: dict[str, str]) -> "Opener":
    """Return what sends a request through the user's proxies, trusting the user's certificates."""
    from bailee.agent.clients import make_tls_context

    proxies = {
        scheme: value
        for scheme in ("http", "https")
        for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY")
        if (value := environment.get(name))
    }
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies or None),
        urllib.request.HTTPSHandler(context=make_tls_context(environment)),
        _SameHost(),
    )
    opener.addheaders = []

    def send(request: urllib.request.Request, seconds: float) -> object:
        return opener.open(request, timeout=seconds)

    return send  # type: ignore[return-value]
