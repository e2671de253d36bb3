"""A certified OpenID Connect provider, and a person who signs in there."""

import contextlib
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2

CLIENT, SECRET = "bailee", "the-secret-of-the-client-0001"
PROGRAM = Path(__file__).with_name("identity_provider.mjs")


@dataclass
class IdentityProvider:
    """One that runs."""

    issuer: str

    def sign_in(self, address: str, login: str) -> str:
        """Go where a browser was sent, sign in and consent; return where it is sent back to."""
        with httpx2.Client(timeout=30) as browser:
            while True:
                answer = browser.get(address)
                if answer.is_redirect:
                    address = urljoin(address, answer.headers["location"])
                    if not address.startswith(self.issuer):
                        return address
                    continue
                prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)
                place = re.search(r'action="([^"]+)"', answer.text)
                assert prompt, answer.text
                assert place, answer.text
                form = {"prompt": prompt[1], "login": login, "password": "any"}
                answer = browser.post(urljoin(address, place[1]), data=form)
                address = urljoin(address, answer.headers["location"])


@contextlib.contextmanager
def running_provider(back: str, people: Mapping[str, Mapping[str, Any]]) -> Iterator[IdentityProvider]:
    """Give one on loopback.

    Args:
        back: where browsers come back to.
        people: what it says of whom, by their login there, which is its id of them.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"port": port, "client": CLIENT, "secret": SECRET, "back": [back], "people": people}
    with subprocess.Popen(
        ["node", str(PROGRAM)],
        env={"PATH": os.environ["PATH"], "BAILEE_TEST_PROVIDER": json.dumps(told)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield IdentityProvider(f"http://127.0.0.1:{port}")
        finally:
            process.kill()
