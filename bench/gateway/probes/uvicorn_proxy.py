"""A bare pass-through: uvicorn (ASGI, no framework) and aiohttp's client.

Arguments: the port to listen on, the upstream's port.
"""

import sys
from typing import Any

import uvicorn
from aiohttp import (  # type: ignore[import-not-found]  # installed apart, by bench/setup
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)

HOP_BY_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"host", b"te", b"trailer", b"upgrade"}
)


class Forwarder:
    """The ASGI application that forwards everything to the upstream."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._client: ClientSession | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Called by the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._client is not None
        body = await _read(receive)
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name not in HOP_BY_HOP
        ]
        query = scope["query_string"]
        url = self._upstream + scope["raw_path"].decode() + ("?" + query.decode() if query else "")
        async with self._client.request(scope["method"], url, headers=headers, data=body) as answer:
            kept = [(name, value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _live(self, receive: Any, send: Any) -> None:
        await receive()
        self._client = ClientSession(
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
        )
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._client.close()
        await send({"type": "lifespan.shutdown.complete"})


async def _read(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def main() -> None:
    """Serve until ended."""
    uvicorn.run(
        Forwarder(f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
    )


if __name__ == "__main__":
    main()
