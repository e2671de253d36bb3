"""The cast of the console's tests, on one service: Alice and Bob of acme, its admin Ada, Charlie and Olga.

Alice and Bob are teammates, Charlie is a stranger with a plan of his own, Olga sees to the service. What is
held of them is hostile: HTML, scripts, terminal escapes, and long.
"""

import http.client
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from bailee.accounts.directory import open_directory
from bailee.accounts.holders import Operator
from bailee.accounts.keys import create_key
from bailee.accounts.operators import appoint_operator
from bailee.accounts.passwords import set_password
from bailee.accounts.sign_ins import Way, sign_in
from bailee.accounts.tables import KeyOrigin, Role
from bailee.flows.feedback.reports import Report, Said, Text
from bailee.ledger.pseudonyms import open_pseudonyms
from bailee.policy.plans import Plan
from counterparts.holdings import read_exchanges
from counterparts.services import Service
from counterparts.waiting import wait_for

PEOPLE = ("nobody", "alice", "bob", "charlie", "admin", "operator")
PASSWORD = "correct horse battery staple"
HOSTILE = (
    "<script>document.title='owned'</script><img src=http://evil.example/x onerror=alert(1)>"
    "\x1b[2J\x1b]0;owned\x07\u202e"
)
SESSIONS = {"alice": "alice-first", "bob": "bob-first", "charlie": "charlie-first"}
HOSTILE_ID = ".."  # as far as a gateway takes one; browsers take it for a folder
LONG = "a very long line " * 20_000
RUNNER = Operator("runner", os.getuid())


@dataclass
class Cast:
    """People, their keys and what signs them in.

    Attributes:
        tokens: of sign-ins, by name; nobody has none.
        ids: of accounts.
    """

    home: Path
    service: Service
    keys: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    report: str = ""
    cloud: str = ""

    @property
    def own_url(self) -> str:
        """The console's own name on this machine, which passkeys are for."""
        return f"http://bailee.localhost:{self.service.address[1]}"

    def ask(
        self,
        method: str,
        path: str,
        person: str = "nobody",
        body: str | bytes | None = None,
        **headers: str,
    ) -> tuple[int, str, dict[str, str]]:
        """Ask as somebody and return status, text and headers; of cookies each is a line."""
        connection = http.client.HTTPConnection(*self.service.address, timeout=30)
        sent = dict(headers)
        if person in self.tokens:
            sent["cookie"] = f"bailee_console={self.tokens[person]}"
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        told = answer.read().decode("utf-8", "replace")
        found = {name.lower(): value for name, value in answer.getheaders()}
        if cookies := answer.headers.get_all("set-cookie"):
            found["set-cookie"] = "\n".join(cookies)
        connection.close()
        return answer.status, told, found

    def send_form(self, path: str, person: str, **fields: str) -> tuple[int, str]:
        """Send a form as a page of somebody's own does, and return status and text."""
        status, told, _ = self.press(path, person, **fields)
        return status, told

    def press(self, path: str, person: str, **fields: str) -> tuple[int, str, dict[str, str]]:
        """Send a form as a page of somebody's own does, and return what `ask` does."""
        token = self.ask("GET", "/console/privacy", person)[1].partition('form_token" value="')[2][:64]
        body = urlencode({"form_token": token, **fields})
        form = {"content-type": "application/x-www-form-urlencoded"}
        return self.ask("POST", path, person, body, **form)

    def say(self, name: str, session: str, text: str, model: str = "claude-rehearsal-1") -> None:
        """Send a prompt as an agent of somebody does."""
        body = {
            "model": model,
            "max_tokens": 64,
            "stream": False,
            "messages": [{"role": "user", "content": text}],
        }
        status, told, _ = self.ask(
            "POST",
            "/v1/messages",
            body=json.dumps(body),
            **{
                "authorization": f"Bearer {self.keys[name]}",
                "content-type": "application/json",
                "x-claude-code-session-id": session,
                "anthropic-version": "2023-06-01",
            },
        )
        assert status == 200, told

    def send_report(self, name: str, session: str, text: str) -> str:
        """Send a report from a session, as an agent of somebody does, and return its id."""
        report = Report(version="1.2", description=text, conversation=(Said("user", (Text(text),)),))
        bearer = {"authorization": f"Bearer {self.keys[name]}", "content-type": "application/json"}
        path, body = f"/api/sessions/{session}/feedback", msgspec.json.encode(report)
        _, told, _ = self.ask("POST", path, body=body, **bearer)
        id: str = json.loads(told)["id"]
        return id

    def list_known(self) -> set[str]:
        """Return whom the ledger's pseudonyms know: accounts by their ids, others by what they are called."""
        pseudonyms = open_pseudonyms(self.home / "keystore", os.urandom)
        try:
            return set(pseudonyms.all())
        finally:
            pseudonyms.close()

    def sign_in(self, name: str) -> str:
        """Sign somebody in anew, and return the token."""
        directory = open_directory(self.home)
        token = sign_in(directory, self.ids[name], None, Way.PASSWORD, address="127.0.0.1", agent="a test's")
        directory.close()
        return token


NAMES = {"alice": "alice", "bob": "bob", "charlie": "charlie", "admin": "ada", "operator": "olga"}


def make_people(home: Path) -> None:
    """Make the accounts."""
    directory = open_directory(home)
    directory.add("ada", Plan.TEAM, organization="acme")
    directory.add("alice", Plan.TEAM, organization="acme", role=Role.MEMBER)
    directory.add("bob", Plan.TEAM, organization="acme", role=Role.MEMBER)
    directory.add("charlie", Plan.PRO)
    directory.add("olga", Plan.FREE)
    appoint_operator(directory, "olga", given=True, by="runner")
    directory.close()


def found_organization(home: Path, service: Service, name: str) -> Cast:
    """Make an organization of an admin and a member, signed in, on a service that others may be on."""
    found = Cast(home, service)
    directory = open_directory(home)
    for person, role in (("admin", Role.ADMIN), ("member", Role.MEMBER)):
        account = directory.add(f"{name}-{person}", Plan.TEAM, organization=name, role=role)
        found.ids[person] = account.id
        key = create_key(directory, account.name, origin=KeyOrigin.OTHER, made_by="runner")
        found.keys[person] = key[1]
    directory.close()
    for person in found.ids:
        found.tokens[person] = found.sign_in(person)
    return found


def make_cast(home: Path, service: Service) -> Cast:
    """Give everybody keys, passwords and sign-ins, and have their agents say something."""
    cast = Cast(home, service)
    directory = open_directory(home)
    cast.ids = {person: directory.get(name).id for person, name in NAMES.items()}
    for person, name in NAMES.items():
        set_password(directory, name, RUNNER, PASSWORD, for_holder=True)
        cast.keys[person] = create_key(directory, name, origin=KeyOrigin.OTHER, made_by="runner")[1]
    directory.close()
    for person in NAMES:
        cast.tokens[person] = cast.sign_in(person)
    for person, session in SESSIONS.items():
        cast.say(person, session, f"{person} said: {HOSTILE}")
    cast.say("alice", HOSTILE_ID, LONG)
    cast.report = cast.send_report("alice", "alice-first", HOSTILE)

    def is_written() -> Any:
        found = read_exchanges(home)
        return (len(found) >= 4 and all(one.state != "open" for one in found)) or None

    wait_for("the records", is_written)
    return cast
