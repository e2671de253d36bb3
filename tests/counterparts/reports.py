"""A service that takes reports, two accounts, and the program beside it."""

import http.client
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.flows.feedback.reports import Attachment, Report, Said, Text
from bailee.flows.feedback.storage import list_reports
from bailee.policy.plans import Plan
from bailee.vault.reader import read_session
from bailee.vault.store import open_keys, open_vault
from counterparts.programs import run_program
from counterparts.services import Service, clean_environment

CANARY = "the bittern of line 7"
SESSION = "0b8f5c1e-session"
REPORT = msgspec.json.encode(
    Report(
        version="1.2",
        description=CANARY,
        conversation=(Said("user", (Text("mend it"),)), Said("assistant", (Text("no"),))),
        attachments=(Attachment("environment", "Linux"),),
        masked={"aws": 2},
    )
)


class Desk:
    """A service, the accounts ada (pro, training on) and bob (pro), and the program beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "state"
        directory = open_directory(self.home)
        for name in ("ada", "bob"):
            directory.add(name, Plan.PRO)
        directory.consent("ada", given=True)
        self.keys = {name: create_key(directory, name)[1] for name in ("ada", "bob")}
        self.ids = {account.name: account.id for account in directory.all()}
        directory.close()
        self.service: Service

    def ask(
        self, method: str, path: str, body: bytes = b"", name: str = "ada", key: str = ""
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self.service.address, timeout=30)
        connection.request(
            method, path, body or None, {"Authorization": f"Bearer {key or self.keys.get(name, 'nobody')}"}
        )
        response = connection.getresponse()
        answer = response.status, json.loads(response.read() or b"null")
        connection.close()
        return answer

    def send(self, body: bytes = REPORT, name: str = "ada", session: str = SESSION) -> tuple[int, Any]:
        return self.ask("POST", f"/api/sessions/{session}/feedback", body, name)

    def sent(self, name: str = "ada", body: bytes = REPORT) -> str:
        status, told = self.send(body, name)
        assert status == 201, told
        return str(told["id"])

    def run(self, *words: str, code: int = 0, **environment: str) -> Any:
        whole = clean_environment(self.folder, BAILEE_HOME=str(self.home), **environment)
        done = run_program(*words, environment=whole, folder=self.folder)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json").stdout)

    def held(self, name: str = "ada", days: int = 0) -> list[str]:
        vault = open_vault(self.home)
        try:
            today = datetime.now(UTC).date() + timedelta(days=days)
            return [report.id for report in list_reports(vault, [self.ids[name]], today=today)]
        finally:
            vault.dispose()

    def content(self, report: str, home: Path | None = None) -> list[bytes]:
        vault, keys = open_vault(home or self.home), open_keys(self.home)
        try:
            today = datetime.now(UTC).date()
            found = read_session(vault, keys, self.ids["ada"], report, today=today)
            return [transcript.request.reveal() for transcript in found]
        finally:
            keys.close()
            vault.dispose()
