"""Nonsense in every query and every field of every form: it is refused in words, and nothing breaks."""

import html
import random
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

from bailee.service.console import make_pages
from console.cast import SESSIONS, Cast, make_cast, make_people
from counterparts.services import serving

NONSENSE = (
    *("\0", "\u202ex", "a" * 50_000, "'; DROP TABLE accounts;--", "{{7*7}}", "\r\nset-cookie: a=b"),
    *("-1", "９", "²", "9" * 40, "9" * 5000, "1e9", "99999999d", "%", "../../etc/passwd", "[]", "on"),
)
ASKED = (
    *("before", "flow", "session", "q", "kind", "days"),
    *("from", "what", "to", "period", "next", "token", "code"),
)
FORM = re.compile(r'<form[^>]*method="post"[^>]*action="([^"]+)"(.*?)</form>', re.DOTALL)
FIELD = re.compile(r'name="([^"]+)"')
HIDDEN = re.compile(r'type="hidden" name="([^"]+)" value="([^"]*)"')
# These end what the others need.
ENDING = ("/console/sign-out", "/console/account", "/erase", "/console/data/erase")


def find_forms(cast: Cast, person: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Give the forms of all pages that somebody sees: where each leads, and its fields as they are sent."""
    seen = set()
    for page in make_pages():
        if page.show is None or page.path.endswith(("/events", "/export")):
            continue
        status, told, _ = cast.ask("GET", page.path.replace("{id}", quote(SESSIONS["alice"])), person)
        for action, body in FORM.findall(told) if status == 200 else ():
            fields = dict.fromkeys(FIELD.findall(body), "x")
            fields |= {name: html.unescape(value) for name, value in HIDDEN.findall(body)}
            of_kind = action, fields.get("act"), *sorted(fields)
            if of_kind not in seen and not action.endswith(ENDING):
                seen.add(of_kind)
                yield html.unescape(action), fields


def test_nothing_breaks(database: str, tmp_path: Path) -> None:
    """No answer is a fault's, no header is added, the service's log knows of none, on either database."""
    home, chance = tmp_path / "state", random.Random(8)
    make_people(home)
    sent: list[tuple[str, str, int]] = []
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        cast = make_cast(home, service)

        def ask(method: str, path: str, person: str, body: str | None = None) -> None:
            kind = {"content-type": "application/x-www-form-urlencoded"} if body else {}
            status, told, headers = cast.ask(method, path, person, body, **kind)
            sent.append((f"{method} {path[:100]} {(body or '')[-100:]}", person, status))
            assert "a=b" not in headers.get("set-cookie", "")
            assert "Traceback" not in told

        for page in make_pages():
            for person in ("alice", "admin", "operator"):
                value = chance.choice(NONSENSE)
                path = page.path.replace("{id}", quote(value[:2000], safe=""))
                query = urlencode(dict.fromkeys(ASKED, chance.choice(NONSENSE)[:5000]))
                ask("GET", f"{path}?{query}", person)
        for number in ("9" * 5000, "²"):
            for query in ("before", "from"):
                ask("GET", f"/console/data?{urlencode({query: number})}", "alice")
            ask("GET", f"/console/ledger?{urlencode({'before': number})}", "operator")
        for person in ("alice", "admin", "operator"):
            for action, fields in find_forms(cast, person):
                for name in sorted(fields.keys() - {"form_token"}):
                    for value in chance.sample(NONSENSE, 2):
                        ask("POST", action, person, urlencode({**fields, name: value}))
        assert "Traceback" not in service.errors
    assert len(sent) > 300
    # A head may be too long before the console has it.
    assert [one for one in sent if one[2] not in (200, 303, 400, 403, 404, 429, 431)] == []
