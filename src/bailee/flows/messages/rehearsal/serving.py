"""The rehearsal model as a server of its own."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import msgspec

from bailee.flows.messages.rehearsal.application import Ending, Received, create_application
from bailee.policy.problems import Problem


def open_listener(host: str, port: int) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    Raises:
        Problem: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise Problem(
            f"cannot listen on {host} port {port}: {error.strerror}",
            where="--host, --port",
            fix="choose another port, or 0 for a free one",
        ) from error
    return listener


def serve(listener: socket.socket, *, record: Path | None = None) -> None:
    """Serve on a bound socket until interrupted.

    Args:
        record: folder into which each request is written.
    """
    import uvicorn

    application = create_application(recorder=None if record is None else record_into(record))
    settings = uvicorn.Config(application, log_level="critical", access_log=False, server_header=False)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listener])


@contextmanager
def rehearsing(
    *,
    recorder: Callable[[Received], None] | None = None,
    observer: Callable[[Received, Ending], None] | None = None,
) -> Iterator[str]:
    """Serve on a free port of the loopback interface, in a thread, for as long as the context lasts.

    Yields:
        The URL.
    """
    import uvicorn

    listener = open_listener("127.0.0.1", 0)
    settings = uvicorn.Config(
        create_application(recorder=recorder, observer=observer),
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="rehearsal")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def record_into(directory: Path) -> Callable[[Received], None]:
    """Return a recorder that writes NNNN.json (method, target, headers) and NNNN.body (its bytes)."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    numbers = count(1)

    def record(received: Received) -> None:
        stem = f"{next(numbers):04}"
        # Written last, the description says that the body is whole.
        (directory / f"{stem}.body").write_bytes(received.body)
        described = {
            "method": received.method.decode("latin-1"),
            "target": received.target.decode("latin-1"),
            "headers": [
                [name.decode("latin-1"), value.decode("latin-1")] for name, value in received.headers
            ],
        }
        (directory / f"{stem}.json").write_bytes(msgspec.json.encode(described))

    return record
