"""An operator's proxy on the loopback interface, behind which names lead where a test wants them."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def serving_proxy(leads: Mapping[str, int]) -> Iterator[tuple[str, list[str]]]:
    """Serve CONNECT for the hosts that are given with their ports here, and for no other.

    Returns:
        The proxy's address, and what it is asked for.
    """
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            place = head.split()[1].decode()
            asked.append(place)
            if head.split()[0] != b"CONNECT" or place not in leads:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", leads[place])) as host:
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                back = threading.Thread(target=relay, args=(host, client), daemon=True)
                back.start()
                relay(client, host)
                back.join()

    def relay(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
