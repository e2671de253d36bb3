"""What a machine may take, and what happens where it takes more."""

from pathlib import Path

import msgspec
import pytest

from bailee.sandbox.machines import Kind, Limits, Spec
from bailee.service.cloud_limits import Watch
from bailee.service.cloud_logs import room_of_turn
from bailee.service.cloud_orders import Order
from counterparts.clouds import World

pytestmark = pytest.mark.usefixtures("served")
EATER = (
    "python3 -c 'import time; held = bytearray(600_000_000); "
    'held[::4096] = b"x" * len(held[::4096]); time.sleep(60)\''
)
HOARDER = (
    'python3 -c \'import os, time; file = os.memfd_create("x"); '
    "[os.write(file, bytes(1_000_000)) for _ in range(600)]; time.sleep(60)'"
)
WRITER = "head -c 400000000 /dev/zero > large; sleep 60"
FORKER = (
    "python3 -c 'import os, sys, time\nfor _ in range(600):\n"
    "  try: os.fork() or (time.sleep(3), os._exit(0))\n"
    "  except OSError: sys.exit(5)'"
)


@pytest.mark.parametrize(
    ("options", "agent", "reason"),
    [
        (("--memory", "300"), EATER, "it took more than its 300 MB of memory"),
        (("--memory", "300"), HOARDER, "it took more than its 300 MB of memory"),
        (("--disk", "200"), WRITER, "it wrote more than its 200 MB of disk"),
    ],
)
def test_more_than_it_may(world: World, options: tuple[str, str], agent: str, reason: str) -> None:
    """A machine of namespaces that takes more is ended with the reason; one that may take it is not."""
    known, _ = world.start("x", *options, "--agent", agent, status=1)
    assert (known["state"], known["reason"]) == ("stopped", reason)
    known, _ = world.start(
        "x", "--agent", agent.replace("sleep(60)", "sleep(2)").replace("sleep 60", "rm large")
    )
    assert known["state"] == "done"


def test_processes(world: World) -> None:
    """A machine that makes more processes than it may is refused them, or ended; one that may is not."""
    known, _ = world.start("x", "--processes", "300", "--agent", FORKER, status=1)
    assert known["reason"] in ("it had more than its 300 processes", "the agent ended with 5")
    known, _ = world.start("x", "--processes", "900", "--agent", FORKER)
    assert known["state"] == "done"


def test_a_virtual_machine_has_its_limits_of_itself(world: World) -> None:
    """Its memory, processors and disk are as large as was asked for."""
    world.isolation = "vm"
    agent = (
        "grep MemTotal /proc/meminfo; echo processors: $(nproc); "
        "head -c 400000000 /dev/zero > /session/large || echo full; rm -f /session/large"
    )
    _, said = world.start("x", "--memory", "512", "--processors", "1", "--disk", "300", "--agent", agent)
    (line,) = [one for one in said.splitlines() if one.startswith("MemTotal")]
    assert 400_000 < int(line.split()[1]) < 540_000
    assert "processors: 1" in said
    assert "full" in said


def log_bytes(world: World, id: str) -> int:
    """Return how much a session's log takes."""
    return sum(one.stat().st_size for one in (world.home / "cloud" / id).glob("log*"))


def test_what_is_said_is_bounded(world: World) -> None:
    """The log has its beginning and how much was left out, and the agent goes on; with room it has all."""
    agent = "head -c 14000000 /dev/zero; echo end > after"
    known, said = world.start("x", "--disk", "100", "--agent", agent)
    assert known["state"] == "done"
    assert 9_000_000 < log_bytes(world, known["id"]) < 11_000_000
    assert said.count("what the machine says from here on is left out") == 1
    assert " bytes of what the machine said were left out of the log" in said
    known, said = world.start("x", "--disk", "200", "--agent", agent)
    assert log_bytes(world, known["id"]) > 14_000_000
    assert "left out" not in said


def test_room_of_a_turn(tmp_path: Path) -> None:
    """A session's log has a tenth of its disk, from 10 to 100 MB; each turn says 1 MB in any case."""
    assert [room_of_turn(tmp_path, mb) for mb in (50, 500, 5000)] == [10_000_000, 50_000_000, 100_000_000]
    (tmp_path / "log.1.sealed").write_bytes(b"x" * 4_000_000)
    assert room_of_turn(tmp_path, 50) == 6_000_000
    (tmp_path / "log").write_bytes(b"x" * 7_000_000)
    assert room_of_turn(tmp_path, 50) == 1_000_000


def make_watch(folder: Path, times: list[float], *, reason: str = "", kind: Kind = Kind.NAMESPACE) -> Watch:
    """Return a watch of a turn of ten seconds whose clock goes as told."""
    left = iter(times)
    spec = Spec(folder=folder, limits=Limits())
    return Watch(2**30, kind, spec, 10.0, lambda: reason, clock=lambda: next(left))


def test_time(tmp_path: Path) -> None:
    """It is over after its time, and not before."""
    watch = make_watch(tmp_path, [0.0, 9.9, 10.1], kind=Kind.VM)
    assert not watch.is_over()
    assert watch.is_over()
    assert watch.reason == "its 10 s were over"


def test_another_reason(tmp_path: Path) -> None:
    """What somebody stopped is told so, and stays so."""
    watch = make_watch(tmp_path, [0.0, 1.0], reason="it was stopped")
    assert watch.is_over()
    assert watch.is_over()
    assert watch.reason == "it was stopped"


def test_an_order_for_too_much() -> None:
    """Limits have limits."""
    for field, value in (("memory_mb", 1), ("processors", 0), ("disk_mb", 0), ("processes", 5)):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"repository": "https://a/b", "prompt": "x", field: value}, Order)
