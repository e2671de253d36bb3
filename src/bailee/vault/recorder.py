"""The process that writes the vault: frames come in over a socket, answers go out when they are durable.

It is a process of its own because the work of recording, 0.2 to 0.5 ms of hashing, compressing and
committing per exchange, would otherwise stand in the way of every stream the gateway relays: a thread
shares the interpreter lock, and its switch interval alone (5 ms) is ten times the gateway's budget.
"""

import argparse
import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa
import sqlalchemy.exc

from bailee.database.engines import truncate_log
from bailee.dumps import forbid_dumps
from bailee.policy.problems import Problem
from bailee.vault import tables
from bailee.vault.frames import Answer, Committed, Failed, Finish, FrameBuffer, encode, frame_decoder
from bailee.vault.store import open_keys, open_vault
from bailee.vault.writer import VaultWriter

# Bounds a transaction, and so the memory and the wait of the first exchange in it.
BATCH_BYTES = 8 * 1024 * 1024
# A request alone is not waited for by anybody; it becomes durable with the next end, or after this long.
BEGIN_DELAY_SECONDS = 0.05
IDLE_SECONDS = 1.0
# How long an idle recorder rests: a command may have erased something meanwhile that a reader still held.
REST_SECONDS = 10.0
# An idle recorder may be asked for something at any time: it does not wait for whoever is reading.
IDLE_PATIENCE_SECONDS = 0.02
NICENESS = 10
LOCK_NAME = "recorder.lock"
# How long the recorder of a killed service may take to write what it was given.
PREDECESSOR_SECONDS = 60.0
_LOOK_SECONDS = 0.02


def serve(channel: socket.socket, writer: VaultWriter, truncate_logs: Callable[[], bool]) -> None:
    """Write frames until the service closes its end; then mark what it left open as interrupted.

    Args:
        truncate_logs: called in idle moments until it tells that it is done, so that old pages do not linger
            in write-ahead logs.
    """
    buffer = FrameBuffer()
    taken = 0
    is_idle_done = True
    while True:
        timeout = BEGIN_DELAY_SECONDS if taken else REST_SECONDS if is_idle_done else IDLE_SECONDS
        if not select.select([channel], [], [], timeout)[0]:
            if taken:
                answer(channel, Committed(writer.commit(), taken))
                taken = 0
            else:
                is_idle_done = truncate_logs()
            continue
        is_idle_done = False
        batch = 0
        while batch < BATCH_BYTES:
            try:
                count = channel.recv_into(buffer.room(), 0, socket.MSG_DONTWAIT if batch else 0)
            except BlockingIOError:
                break
            if not count:
                close_out(writer)
                truncate_logs()
                return
            batch += count
            buffer.grow(count)
            writer.take(map(frame_decoder.decode, buffer.bodies()))
        taken += batch
        if writer.is_awaited or taken >= BATCH_BYTES:
            answer(channel, Committed(writer.commit(), taken))
            taken = 0


def close_out(writer: VaultWriter) -> None:
    """End what the service left open when it went away."""
    writer.take(map(interruption, writer.open_exchanges))
    writer.commit()


def prove_writing(vault: sa.Engine) -> None:
    """Write one page durably: opening a database and marking nothing in it succeed on a full disk too.

    Raises:
        sqlalchemy.exc.OperationalError: it cannot be written.
    """
    with vault.connect() as connection:
        if vault.dialect.name == "postgresql":
            # A transaction that has a number of its own is written to the server's log when it commits.
            connection.exec_driver_sql("SELECT pg_current_xact_id()")
            connection.commit()
            return
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA user_version = {version}")


def interruption(exchange: int) -> Finish:
    """The end of an exchange whose service went away."""
    reason = "the service ended before the answer did"
    return Finish(
        exchange,
        tables.State.INTERRUPTED,
        reason,
        None,
        None,
        0,
        0,
        None,
        None,
        None,
        None,
        None,
        None,
        b"",
        b"",
    )


@contextlib.contextmanager
def alone(home: Path, *, patience: float = PREDECESSOR_SECONDS) -> Iterator[None]:
    """Write a home alone: a killed service's recorder may still be writing what it was given.

    Raises:
        Problem: it has not ended after `patience` seconds.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(home / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Problem(
                        f"an earlier recorder of this home has not ended after {patience:.0f} s",
                        where=str(home / LOCK_NAME),
                        fix="end the process that holds it: fuser shows which",
                    ) from None
            time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)


def answer(channel: socket.socket, message: Answer) -> None:
    """Send one answer; a service that is gone is noticed by the next receive."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        channel.sendall(encode(message))


def record(channel: socket.socket, home: Path) -> None:
    """Write what comes from a service into its home, until the service closes its end."""
    vault = open_vault(home)
    keystore = open_keys(home)
    writer = VaultWriter(vault, keystore, os.urandom)
    prove_writing(vault)
    writer.interrupt_open()
    answer(channel, Committed([], 0))

    def truncate_logs() -> bool:
        is_vault_done = truncate_log(vault, patience=IDLE_PATIENCE_SECONDS)
        return keystore.truncate_log(patience=IDLE_PATIENCE_SECONDS) and is_vault_done

    serve(channel, writer, truncate_logs)
    writer.close()
    keystore.close()
    vault.dispose()


def main(arguments: list[str] | None = None) -> int:
    """Run the recorder on an inherited socket; started by the service, never by a person."""
    parser = argparse.ArgumentParser(prog="bailee-recorder")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--descriptor", type=int, required=True)
    options = parser.parse_args(arguments)
    forbid_dumps()
    # The service ends it by closing its end of the socket, after the last frame, so a Ctrl-C meant for the
    # service must not.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Relaying goes before recording where both want one core: the first byte of an answer came 0.4 ms sooner.
    # Admission bounds what may pile up meanwhile.
    os.nice(NICENESS)
    channel = socket.socket(fileno=options.descriptor)
    try:
        with alone(options.home):
            record(channel, options.home)
    except Problem as problem:
        answer(channel, Failed(str(problem)))
        return 1
    except (sqlalchemy.exc.SQLAlchemyError, OSError, msgspec.MsgspecError) as error:
        # The statement and its parameters stay out of the message: they would name sessions.
        cause = getattr(error, "orig", None) or error
        answer(channel, Failed(f"{type(cause).__name__}: {cause}"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
