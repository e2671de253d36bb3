"""A bare pass-through: aiohttp's server and client. Arguments: the port to listen on, the upstream's port."""

import sys

import uvloop
from aiohttp import (  # type: ignore[import-not-found]  # installed apart, by bench/setup
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
    web,
)

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "host", "te", "trailer", "upgrade"})
MAX_BODY_BYTES = 64 * 1024 * 1024


async def create_application(upstream: str) -> web.Application:
    """Return the application that forwards everything to the upstream."""
    client = ClientSession(
        connector=TCPConnector(limit=0),
        cookie_jar=DummyCookieJar(),
        timeout=ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
    )

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        async with client.request(
            request.method, upstream + request.path_qs, headers=headers, data=body
        ) as answer:
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response

    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_route("*", "/{tail:.*}", forward)
    return application


def main() -> None:
    """Serve until ended."""
    uvloop.install()
    web.run_app(
        create_application(f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
    )


if __name__ == "__main__":
    main()
