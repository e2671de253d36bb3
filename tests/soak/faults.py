"""Who is killed, and when: each fault kills a process at a random moment of its work."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from enum import StrEnum
from random import Random

from soak.journals import Erasure
from soak.worlds import Command, World

# A command is at work for some tenths of a second after it has opened its databases.
WORK_SECONDS = 0.35
TRIES = 20


class Victim(StrEnum):
    """Who is killed.

    Attributes:
        BOTH: the service and its recorder, within some milliseconds.
        STALLED: the same, after the recorder has stood still for a moment: nothing of that moment is durable.
        SWEEPER_OF_TWO: one of two sweepers that run at once; the other ends by itself.
        BACKEND: a process of the database server that works for Bailee, upon which the server throws out
            everybody and recovers.
        SERVER: the database server itself, all of it, as in a power cut.
    """

    SERVICE = "service"
    RECORDER = "recorder"
    BOTH = "service and recorder"
    STALLED = "service and stalled recorder"
    SWEEPER = "sweeper"
    SWEEPER_OF_TWO = "one of two sweepers"
    ERASER = "eraser"
    BACKEND = "database backend"
    SERVER = "database server"


EVERYWHERE = (
    *(Victim.SERVICE, Victim.RECORDER, Victim.RECORDER, Victim.BOTH, Victim.BOTH, Victim.STALLED),
    *(Victim.SWEEPER, Victim.SWEEPER, Victim.SWEEPER_OF_TWO, Victim.ERASER, Victim.ERASER, Victim.ERASER),
)
WITH_SERVER = (*EVERYWHERE, Victim.BACKEND, Victim.SERVER)


def inflict(world: World, victim: Victim, random: Random) -> None:
    """Kill somebody, while everybody else goes on."""
    _FAULTS[victim](world, random)


def erase(world: World, session: str) -> None:
    """Have a session erased, to the end."""
    _note(world, session, command := _start_erasure(world, session))
    if command.process.returncode != 0:
        raise RuntimeError(f"the erasure ended with {command.process.returncode}: {command.told}")


def _kill_service(world: World, random: Random) -> None:
    time.sleep(random.uniform(0.02, 0.6))
    # The next one starts while the recorder of this one may still be at its last frames.
    world.service.process.kill()
    world.service.process.wait()


def _kill_recorder(world: World, random: Random) -> None:
    time.sleep(random.uniform(0.02, 0.6))
    world.service.kill_recorder()


def _kill_both(world: World, random: Random) -> None:
    recorder = world.service.recorder
    time.sleep(random.uniform(0.02, 0.6))
    first, second = random.sample((recorder, world.service.process.pid), 2)
    os.kill(first, signal.SIGKILL)
    time.sleep(random.choice((0.0, random.uniform(0, 0.02))))
    with contextlib.suppress(ProcessLookupError):
        os.kill(second, signal.SIGKILL)
    world.service.process.wait()


def _kill_stalled(world: World, random: Random) -> None:
    recorder = world.service.stop_recorder()
    time.sleep(random.uniform(0.3, 0.6))
    world.service.process.kill()
    world.service.process.wait()
    os.kill(recorder, signal.SIGKILL)


def _kill_sweeper(world: World, random: Random) -> None:
    for _ in range(TRIES):
        world.clock.advance(1)
        if _kill_at_work(world.start_sweep(), random):
            return
    raise RuntimeError("every sweep was done before it could be killed")


def _kill_sweeper_of_two(world: World, random: Random) -> None:
    for _ in range(TRIES):
        world.clock.advance(1)
        first, second = world.start_sweep(), world.start_sweep()
        is_killed = _kill_at_work(first, random)
        if second.wait() != 0:
            raise RuntimeError(f"the other sweeper ended with {second.process.returncode}: {second.told}")
        if is_killed:
            return
    raise RuntimeError("every sweep was done before it could be killed")


def _kill_eraser(world: World, random: Random) -> None:
    for _ in range(TRIES):
        sessions = world.journal.list_sessions()
        # Often one that is being written, often one that is not.
        session = random.choice(sessions[-6:] if random.random() < 0.5 else sessions)
        command = _start_erasure(world, session)
        is_killed = _kill_at_work(command, random)
        _note(world, session, command)
        if is_killed:
            return
    raise RuntimeError("every erasure was done before it could be killed")


def _kill_backend(world: World, random: Random) -> None:
    assert world.server is not None
    time.sleep(random.uniform(0.02, 0.6))
    with world.server.connect() as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname LIKE '%_vault' OR datname LIKE '%_keystore'"
        backends = [int(str(pid)) for (pid,) in connection.execute(query)]
    os.kill(random.choice(backends), signal.SIGKILL)
    time.sleep(0.1)  # it notices, and throws everybody out
    world.server.wait_until_ready()


def _kill_server(world: World, random: Random) -> None:
    assert world.server is not None
    time.sleep(random.uniform(0.02, 0.6))
    world.server.crash()
    world.server.start_again()


def _start_erasure(world: World, session: str) -> Command:
    return world.start("sessions", "erase", session, "--yes", "--json")


def _kill_at_work(command: Command, random: Random) -> bool:
    command.wait_until_at_work()
    time.sleep(random.uniform(0, WORK_SECONDS))
    return command.kill()


def _note(world: World, session: str, command: Command) -> None:
    """Note an erasure: acknowledged is one whose command ended well."""
    code = command.wait()
    if code > 0 and "there is no session" not in command.told:
        raise RuntimeError(f"the erasure ended with {code}: {command.told}")
    world.journal.erasures.append(Erasure(session, command.begun, command.ended, is_acknowledged=code == 0))


_FAULTS: dict[Victim, Callable[[World, Random], None]] = {
    Victim.SERVICE: _kill_service,
    Victim.RECORDER: _kill_recorder,
    Victim.BOTH: _kill_both,
    Victim.STALLED: _kill_stalled,
    Victim.SWEEPER: _kill_sweeper,
    Victim.SWEEPER_OF_TWO: _kill_sweeper_of_two,
    Victim.ERASER: _kill_eraser,
    Victim.BACKEND: _kill_backend,
    Victim.SERVER: _kill_server,
}
