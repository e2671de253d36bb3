"""One soak: kill somebody, let everything come to rest, audit; again and again."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from bailee.database.leases import node_name
from bailee.policy.problems import Problem
from bailee.vault.custody import open_custody
from bailee.vault.sweepers import note_success
from bailee.vault.sweeping import sweep
from counterparts.databases import Server
from soak.audits import Auditor
from soak.faults import EVERYWHERE, WITH_SERVER, Victim, inflict
from soak.worlds import World, opening


@dataclass
class Soaked:
    """What a soak did and found."""

    kills: Counter[Victim] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    acknowledged: int = 0
    gone: int = 0
    entries: int = 0


Report = Callable[[Victim, list[str]], None]


def soak(
    folder: Path,
    *,
    seed: int,
    kills: int,
    server: Server | None,
    victims: tuple[Victim, ...] = (),
    report: Report = lambda victim, violations: None,
) -> Soaked:
    """Kill so many times, and audit after each.

    Args:
        server: where the databases are, with `BAILEE_DATABASE` set accordingly; None for SQLite.
        victims: who is killed, in turn; drawn at random if left out.
    """
    random = Random(seed)
    soaked = Soaked()
    with opening(folder, random, server) as world:
        auditor = Auditor(world.home, world.journal, world.clock)
        for number in range(kills):
            drawn = random.choice(EVERYWHERE if server is None else WITH_SERVER)
            victim = victims[number % len(victims)] if victims else drawn
            if random.random() < 0.3:
                world.clock.advance(1)
            try:
                inflict(world, victim, random)
                found = settle_and_audit(world, auditor)
            except (AssertionError, RuntimeError, Problem) as error:  # waited in vain, or a command failed
                found = [str(error)]
            soaked.kills[victim] += 1
            soaked.violations += [f"kill {number + 1}, {victim}: {what}" for what in found]
            report(victim, found)
            if found:
                break  # the home is evidence
        soaked.acknowledged = world.journal.acknowledged
        soaked.gone, soaked.entries = len(auditor.gone), auditor.entries
    return soaked


def sweep_here(world: World) -> None:
    """Sweep to the end by the day it is, as `bailee retention sweep` does, without starting a process."""
    custody = open_custody(world.home, clock=world.clock)
    done = sweep(custody)
    note_success(custody.keystore.engine, node_name(), world.read_clocks(), done)
    custody.close()


def settle_and_audit(world: World, auditor: Auditor) -> list[str]:
    """Restart what was killed, see that it works, let it rest, sweep, and audit."""
    world.serve()
    world.wait_until_recording()
    world.pause()
    sweep_here(world)
    found = auditor.audit()
    if "Traceback" in world.errors:
        found.append(f"the service wrote a traceback: {world.errors[-2000:]}")
    world.resume()
    return found
