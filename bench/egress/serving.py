"""Bailee's security proxy on a port of loopback: `python -m bench.egress.serving PORT FOLDER HOST_PORT`.

One rule allows loopback, as what is private; each row is sealed and written before anything is dialled.
"""

import asyncio
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import uvloop

from bailee.flows.web.log import ConnectionLog, Way
from bailee.flows.web.proxy import Proxy
from bailee.flows.web.rules import Rule, Rules, Wire
from bailee.flows.web.sessions import Session
from bailee.flows.web.targets import Address


async def serve(port: int, folder: Path) -> None:
    """Serve until killed."""

    async def resolve(name: str, port: int) -> list[Address]:
        return [ip_address("127.0.0.1")]

    target = int(sys.argv[3])
    rule = Rule(host="127.0.0.1", ports=(target,), wire=Wire.TCP, is_private=True, origin="bench")
    log = ConnectionLog(folder / f"{os.getpid()}.log", os.urandom(32), "bench")
    proxy = Proxy(Session(Rules(allowed=(rule,)), log, resolve=resolve))
    listener = socket.create_server(("127.0.0.1", port), backlog=1024)
    await proxy.serve(listener, Way.CONNECT)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
