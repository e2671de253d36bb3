"""Tokens of GitHub Apps: made for one session and repository, kept in memory, revoked when it ends."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.apps import PERMISSIONS, App, write_proof
from bailee.flows.git.github.places import find_place, name_of
from bailee.flows.git.upstreams import Credential, Upstreams
from bailee.policy.problems import Problem

# GitHub's tokens live for an hour; a clone may take minutes after it began.
SPARE_SECONDS = 600.0
LOOK_SECONDS = 15.0
_LARGEST = 1_000_000
_ACCEPT = {"accept": "application/vnd.github+json", "accept-encoding": "identity"}


class _Granted(msgspec.Struct):
    token: str
    expires_at: datetime


class _Held(msgspec.Struct):
    """A token as long as it is good.

    Attributes:
        until: seconds since 1970 UTC.
    """

    api: str
    credential: Credential
    until: float


class Installations:
    """Makes tokens and revokes them.

    Args:
        is_open: whether a session, by its key, goes on.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        is_open: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._upstreams = upstreams
        self._is_open = is_open
        self._clock = clock
        self._look_seconds = look_seconds
        self._held: dict[tuple[str, str], _Held] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._watching: asyncio.Task[None] | None = None

    async def open(self, app: App, access: Access, repository: Attached) -> Credential:
        """Return the credential of a session for a repository.

        Raises:
            Problem: the host gives none.
        """
        name = (access.key, repository.scope)
        async with self._locks.setdefault(name, asyncio.Lock()):
            held = self._held.get(name)
            if held is None or held.until - SPARE_SECONDS < self._clock():
                if held is not None:
                    # Whatever goes on with it has ten minutes left.
                    del self._held[name]
                held = await self._make(app, repository)
                self._held[name] = held
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        return held.credential

    async def close(self) -> None:
        """Revoke all that is held."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await asyncio.gather(*(self._revoke(name) for name in list(self._held)))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            for name in list(self._held):
                if not self._is_open(name[0]):
                    await self._revoke(name)

    async def _make(self, app: App, repository: Attached) -> _Held:
        api = find_place(repository).rest
        url = f"{api}/app/installations/{app.installation}/access_tokens"
        asked = {"repositories": [name_of(repository).rpartition("/")[2]], "permissions": PERMISSIONS}
        headers = {
            **_ACCEPT,
            "authorization": f"Bearer {write_proof(app, self._clock())}",
            "content-type": "application/json",
        }
        told = b""
        try:
            answer = await self._upstreams.ask("POST", url, headers, msgspec.json.encode(asked))
            try:
                async for piece in answer.aiter_raw():
                    told += piece
                    if len(told) > _LARGEST:
                        raise OSError("too long")
            finally:
                await answer.aclose()
            if answer.status_code != 201:
                raise OSError(f"it answers {answer.status_code}")
            granted = msgspec.json.decode(told, type=_Granted)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as fault:
            why = str(fault) if isinstance(fault, OSError) else "its answer cannot be read"
            raise Problem(
                f"the GitHub App {app.id} gets no token for {repository.place}: {why}",
                where="GITHUB_APP",
                fix="see that it is installed there, with write access to contents and pull requests",
            ) from None
        return _Held(api, Credential(granted.token), granted.expires_at.timestamp())

    async def _revoke(self, name: tuple[str, str]) -> None:
        held = self._held.pop(name, None)
        self._locks.pop(name, None)
        if held is None:
            return
        # Where the host cannot be reached it ends by itself within the hour.
        with contextlib.suppress(OSError):
            headers = {**_ACCEPT, "authorization": held.credential.to_bearer()}
            answer = await self._upstreams.ask("DELETE", f"{held.api}/installation/token", headers)
            await answer.aclose()
