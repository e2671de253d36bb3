"""Drivers that wait for a session: the next begins at once, and is the same session as without."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bailee import __version__
from bailee.service import cloud_spares
from bailee.service.cloud_spares import hand_over, is_awaited
from counterparts.clouds import World, drivers
from counterparts.services import Service, serving
from counterparts.waiting import wait_for


@pytest.fixture
def service(world: World) -> Iterator[Service]:
    """Give a service on a home that has a session already, so that a driver waits."""
    world.start("x", "--agent", "true")
    options = ("--upstream", "rehearsal")
    with serving(world.home, world.folder / "service", *options, environment=world.environment) as running:
        wait_for("a driver that waits", lambda: drivers(world) or None)
        yield running


def test_the_next_is_driven_by_the_one_that_waits(world: World, service: Service) -> None:
    """By a command as well: with the settings of whoever began it, and then another waits."""
    wait_for("its readiness", lambda: is_awaited(world.home) or None)
    (waiting,) = drivers(world)
    world.environment["PATH"] += ":/canary-of-the-command"
    known, _ = world.start("x", "--agent", 'echo "$PATH"; sleep 303', wait=False)
    assert int((world.home / "cloud" / known["id"] / "lock").read_text()) == waiting
    wait_for("another", lambda: len(drivers(world)) == 2 or None)
    wait_for("its work", lambda: "/canary" in world.bailee("cloud", "logs", known["id"]) or None)
    world.bailee("cloud", "stop", known["id"])
    wait_for("one driver alone", lambda: len(drivers(world)) == 1 or None)
    assert drivers(world) != [waiting]


def test_where_packages_come_from_is_asked_before(tmp_path: Path) -> None:
    """A driver that waits answers for the same programs at once; other settings are asked for anew."""
    asked = tmp_path / "asked"
    for name in ("pip", "npm"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {name} >> {asked}\necho https://{name}.example/simple\n")
        program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    script = (
        "import os, sys; from pathlib import Path; from bailee.service.cloud_spares import Waiting\n"
        "waiting = Waiting(Path(sys.argv[1]), 0); waiting._ask(); here = {'PATH': os.environ['PATH']}\n"
        "print(waiting.find_index('pip', here), waiting.find_index('npm', {**here, 'A': 'b'}))\n"
        "print(waiting.find_index('pip', {**here, 'PIP_INDEX_URL': 'https://mine.example/simple'}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["pip.example", "npm.example", "mine.example"]
    assert sorted(asked.read_text().split()) == ["npm", "pip"]


@pytest.mark.parametrize("way", ["ended", "killed"])
def test_it_ends_with_its_service(world: World, service: Service, way: str) -> None:
    """No driver waits on where its service has ended or was killed, and a session begins without one."""
    wait_for("its readiness", lambda: is_awaited(world.home) or None)
    if way == "killed":
        os.kill(service.process.pid, signal.SIGKILL)
    else:
        service.end()
    wait_for("the end of the one that waits", lambda: drivers(world) == [] or None)
    assert not is_awaited(world.home)
    known, _ = world.start("x", "--agent", "true")
    assert known["state"] == "done"


# Speaks as another user, by a socket whose name is the first argument.
STRANGER = """
import os, socket, sys
os.setuid(65534)
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.settimeout(20)
name = sys.argv[1].replace("@", chr(0))
if sys.argv[2]:
    channel.connect(name)
    try:
        channel.send(sys.argv[2].encode())
        print("answered", channel.recv(9))
    except ConnectionError:
        print("refused")
else:
    channel.bind(name)
    channel.listen()
    print("listening", flush=True)
    print("told", channel.accept()[0].recv(9))
"""


def order_as_stranger(home: Path, order: str) -> "subprocess.Popen[str]":
    """Start somebody else who sends an order, or takes one if it is empty."""
    name = cloud_spares._name(home).replace("\0", "@")
    return subprocess.Popen([sys.executable, "-c", STRANGER, name, order], stdout=subprocess.PIPE, text=True)


def test_it_takes_no_order_of_another_user(tmp_path: Path) -> None:
    """It goes on waiting; the same order of its own user is taken."""
    assert os.geteuid() == 0, "to be another user takes root"
    order = {"version": __version__, "session": "x", "environment": {}, "only_saves": False}
    script = "import sys; from pathlib import Path; from bailee.service.cloud_spares import Waiting\n"
    script += "print(Waiting(Path(sys.argv[1]), 0).wait(lambda: None), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for("its readiness", lambda: is_awaited(tmp_path) or None)
        with order_as_stranger(tmp_path, json.dumps(order)) as stranger:
            assert stranger.communicate()[0].strip() in ("answered b''", "refused")
        assert process.poll() is None
        with (tmp_path / "lock").open("w") as lock:
            assert not hand_over(
                tmp_path, "x", lock.fileno(), {}
            )  # taken, and ended before it drove anything
        assert "session='x'" in process.communicate()[0]


def test_another_user_is_given_no_order(tmp_path: Path) -> None:
    """Who listens under the name without being this user learns nothing."""
    assert os.geteuid() == 0, "to be another user takes root"
    with order_as_stranger(tmp_path, "") as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "listening\n"
        with (tmp_path / "lock").open("w") as lock:
            assert not hand_over(tmp_path, "x", lock.fileno(), {"SECRET": "canary"})
        assert stranger.communicate()[0].strip() == "told b''"
