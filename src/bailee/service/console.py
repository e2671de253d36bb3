"""The console, plugged into the service: its pages and those that flows bring, made at the first request."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bailee.characters import make_visible
from bailee.console.paths import LINK, OWN_NAME, lead_browsers
from bailee.flows.feedback.github import Tracker
from bailee.flows.forwarding.hops import NextHop
from bailee.flows.messages.upstreams import Upstream, parse_origin
from bailee.pages import Hop, Installation
from bailee.policy.contexts import Context
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem
from bailee.service.configuration import Configuration
from bailee.service.forwarding import decide_forwarding
from bailee.vault.custody import open_custody

if TYPE_CHECKING:
    from bailee.console.application import Console
    from bailee.flows.messages.data_pages import Table
    from bailee.pages import Page

PATHS = ("/console", "/console/{rest:path}", "/data-usage", "/data-usage/{agent}", "/oauth/device")


class ConsoleRoutes:
    """Answers for the console; a service that nobody looks at has not even imported it."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._console: Console | None = None
        self._close: Callable[[], None] = lambda: None
        self._making = asyncio.Lock()

    def make_routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [Route(path, self) for path in PATHS]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if self._console is None:
            async with self._making:
                if self._console is None:
                    self._console = await run_in_threadpool(self._make)
        await self._console(scope, receive, send)

    def close(self) -> None:
        """Close what was opened."""
        if self._console is not None:
            self._console.close()
            self._close()

    def _make(self) -> "Console":
        from bailee.console.application import Console

        home = self._installation.home
        custody = open_custody(home)
        self._close = custody.close
        return Console(
            make_pages(),
            custody=custody,
            open_custody=partial(open_custody, home),
            installation=self._installation,
        )


def describe_installation(
    configuration: Configuration,
    upstream: Upstream,
    *,
    hops: Sequence[NextHop],
    tracker: Tracker | None,
    environment: Mapping[str, str],
) -> Installation:
    """Return what pages may tell of the running service.

    Args:
        environment: the service's own.
    """
    forwarding = decide_forwarding(Context(provider=upstream.provider), environment)
    return Installation(
        home=configuration.home,
        upstream=upstream.name,
        upstream_url=configuration.upstream_url,
        upstream_scheme=upstream.origin.scheme,
        provider=upstream.provider,
        is_first_party=upstream.is_first_party,
        retains_nothing=upstream.zero_data_retention,
        hops=tuple(Hop(hop.name, hop.target) for hop in hops),
        decisions={FlowId.FORWARDING: forwarding} if hops else {},
        tracker=tracker.repository if tracker else "",
        tracker_url=tracker.url if tracker else "",
        console_url=read_console_url(environment.get("BAILEE_CONSOLE_URL", "")),
        has_tls=configuration.tls_certificate is not None,
        started_ms=int(time.time() * 1000),
    )


def read_console_url(url: str) -> str:
    """Return the origin that browsers reach the console at; empty for none.

    Raises:
        Problem: it is none, or not one that browsers use passkeys at.
    """
    if not url:
        return ""
    origin = parse_origin(url, where="BAILEE_CONSOLE_URL")
    if origin.base or (origin.scheme == "http" and origin.host not in (OWN_NAME, "localhost")):
        raise Problem(
            "this is not an address that browsers use passkeys at",
            where=f"BAILEE_CONSOLE_URL {url}",
            fix="write https://HOST, or https://HOST:PORT",
        )
    return f"{origin.scheme}://{origin.authority}"


def make_pages() -> "list[Page]":
    """Return all pages, in the order of the navigation."""
    from bailee.console import (
        agent_pages,
        devices,
        flow_pages,
        ledgers,
        managed,
        organizations,
        privacy,
        receipts,
        retention_pages,
    )
    from bailee.console.signing_in import SigningIn
    from bailee.flows.errors import pages as errors
    from bailee.flows.feedback import pages as feedback
    from bailee.flows.forwarding import pages as forwarding
    from bailee.flows.git import pages as git
    from bailee.flows.messages import data_pages
    from bailee.flows.messages import pages as messages
    from bailee.flows.metrics import pages as metrics
    from bailee.flows.survey import pages as survey
    from bailee.flows.web import pages as web
    from bailee.service import cloud_pages, repository_pages
    from bailee.service.cloud_place import PLACE

    pages = [
        *data_pages.make_pages({FlowId.WEB: tell_log}, [PLACE]),
        *privacy.make_pages(),
        *feedback.make_pages(),
        *receipts.make_pages(),
        *ledgers.make_pages(),
        *devices.make_pages(),
        *organizations.make_pages(),
        *repository_pages.make_pages(),
        *managed.make_pages(),
        *messages.make_pages(),
        *metrics.make_pages(),
        *errors.make_pages(),
        *survey.make_pages(),
        *web.make_pages(),
        *git.make_pages(),
        *forwarding.make_pages(),
        *cloud_pages.make_pages(),
        *retention_pages.make_pages(),
        *SigningIn().make_pages(),
    ]
    return [*flow_pages.make_pages(pages), *agent_pages.make_pages(pages), *pages]


def tell_log(body: bytes) -> "Table":
    """Return what a log of connections says, in columns."""
    from bailee.flows.messages.data_pages import Table
    from bailee.flows.web.receiver import read_held
    from bailee.service.audits import HEADS, tell_lines, tell_rows

    heads = [
        f"#{head.capitalize()}" if head in ("SENT", "RECEIVED") else head.capitalize() for head in HEADS[1:]
    ]
    rows = [[make_visible(cell) for cell in line] for line in tell_lines(tell_rows(read_held(body)))]
    return Table(["Time (UTC)", *heads], rows)


def make_link_url(base: str, token: str) -> str:
    """Return the address that a link's token signs in at."""
    return f"{lead_browsers(base)}{LINK}?token={token}"
