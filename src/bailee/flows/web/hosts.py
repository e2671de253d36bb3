"""The other side of a tunnel: the host that was dialled."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from bailee.flows.web.rules import Refusal
from bailee.flows.web.sessions import CONNECT_SECONDS, Unreachable

if TYPE_CHECKING:
    from bailee.flows.web.proxy import AgentConnection

LINGER_SECONDS = 30.0


class HostConnection(asyncio.Protocol):
    """The other side of a tunnel."""

    def __init__(self, agent: "AgentConnection") -> None:
        self._agent = agent
        self.transport: asyncio.Transport
        self.is_closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by class
        self._agent.proxy.transports.add(self.transport)

    def data_received(self, data: bytes) -> None:
        self._agent.take(data)

    def eof_received(self) -> bool:
        self._agent.host_eof()
        return True

    def pause_writing(self) -> None:
        self._agent.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._agent.transport.is_closing():
            self._agent.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_closed = True
        self._agent.proxy.transports.discard(self.transport)
        self._agent.host_lost(error)

    def write_eof(self) -> None:
        """Say that the agent has said all that it says."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self, *, is_abrupt: bool) -> None:
        """Close it."""
        self.is_closed = True
        close(self.transport, is_abrupt=is_abrupt)


def close(transport: asyncio.Transport, *, is_abrupt: bool) -> None:
    """Close a connection; who does not take what waits for it is not waited for longer than a while."""
    if is_abrupt:
        transport.abort()
    else:
        transport.close()
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.abort)


async def dial(
    addresses: list[tuple[str, int]], factory: Callable[[], HostConnection]
) -> tuple[HostConnection, str]:
    """Connect to the first address that answers.

    Raises:
        Unreachable: none does.
    """
    loop = asyncio.get_running_loop()
    reason = ""
    for address, port in addresses:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, host = await loop.create_connection(factory, address, port)
        except TimeoutError:
            reason = f"{address} does not answer"
        except OSError as error:
            reason = f"{address}: {error.strerror or 'cannot be reached'}"
        else:
            return host, address
    raise Unreachable(Refusal("unreachable", reason))
