"""What opens repositories at their hosts: what somebody kept, or a token that is made of a GitHub App."""

from collections.abc import Callable

from bailee.flows.git.access import Access, Attached
from bailee.flows.git.github.apps import App
from bailee.flows.git.github.installations import Installations
from bailee.flows.git.upstreams import Credential, Upstreams

# Looks up what is kept for a repository; None where it is open to everybody.
FindCredential = Callable[[Access, Attached], Credential | App | None]


class Credentials:
    """Opens repositories for sessions.

    Args:
        is_open: whether a session, by its key, goes on.
        clock: seconds since 1970 UTC.
    """

    def __init__(
        self,
        find: FindCredential,
        upstreams: Upstreams,
        *,
        is_open: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        self._find = find
        self._installations = Installations(upstreams, is_open=is_open, clock=clock)

    async def open(self, access: Access, repository: Attached) -> Credential | None:
        """Return what opens a repository; None where nothing is kept for it.

        Raises:
            Problem: what was kept does not open, or the host makes no token of it.
        """
        found = self._find(access, repository)
        return await self._installations.open(found, access, repository) if isinstance(found, App) else found

    async def close(self) -> None:
        """Revoke what was made."""
        await self._installations.close()
