"""What was decided of groups of errors: resolved until one comes again, or muted until reopened."""

from enum import StrEnum
from hashlib import sha256

import msgspec
import sqlalchemy as sa

from bailee.flows.errors.results import Group
from bailee.policy.problems import Problem
from bailee.vault import tables

_ID_DIGITS = 12


class State(StrEnum):
    """How a group stands."""

    OPEN = "open"
    RESOLVED = "resolved"
    CAME_BACK = "came back"
    MUTED = "muted"


class Triaged(msgspec.Struct, frozen=True):
    """A group and how it stands.

    Attributes:
        id: follows from the class and the place, so that it is the same as long as these are.
        changed_by, changed_ms: who decided, milliseconds since 1970 UTC; None where nobody did.
    """

    id: str
    state: State
    group: Group
    changed_by: str | None = None
    changed_ms: int | None = None

    @property
    def is_quiet(self) -> bool:
        """Whether nobody has to look at it."""
        return self.state in (State.RESOLVED, State.MUTED)


def triage(engine: sa.Engine, groups: list[Group]) -> list[Triaged]:
    """Return groups with how they stand, in their order."""
    with engine.connect() as connection:
        decided = {row.id: row for row in connection.execute(sa.select(tables.error_groups))}
    found = []
    for group in groups:
        id = identify(group)
        row = decided.get(id)
        if row is None:
            found.append(Triaged(id, State.OPEN, group))
            continue
        state = State(row.state)
        if state is State.RESOLVED and group.last_ms > row.changed_ms:
            state = State.CAME_BACK
        found.append(Triaged(id, state, group, row.changed_by, row.changed_ms))
    return found


def identify(group: Group) -> str:
    """Return the id of a group."""
    return sha256(f"{group.name}\0{group.where}".encode()).hexdigest()[:_ID_DIGITS]


def find(triaged: list[Triaged], beginning: str) -> Triaged:
    """Return the one group whose id begins so.

    Raises:
        Problem: there is none, or there are several.
    """
    found = [one for one in triaged if beginning and one.id.startswith(beginning)]
    if len(found) != 1:
        what = f"{len(found)} groups begin with" if found else "there is no group"
        raise Problem(f"{what} {beginning!r}", where="GROUP", fix="see: bailee errors list --all")
    return found[0]


def decide(engine: sa.Engine, id: str, state: State, *, by: str, now_ms: int) -> None:
    """Note how a group stands from now on; `open` takes back what was decided."""
    table = tables.error_groups
    with engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.id == id))
        if state is not State.OPEN:
            row = {"id": id, "state": state.value, "changed_by": by, "changed_ms": now_ms}
            connection.execute(sa.insert(table), row)
