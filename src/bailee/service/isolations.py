"""The kinds of machine that there are here, and which one a session gets."""

from collections.abc import Callable

from bailee.policy.problems import Problem
from bailee.sandbox.machines import Isolation, Kind

AUTO = "auto"


def make_isolation(kind: Kind, tell: Callable[[str], None] = lambda what: None) -> Isolation:
    """Return what makes machines of a kind.

    Args:
        tell: is told what is being made that sessions share.
    """
    if kind is Kind.VM:
        from bailee.sandbox.virtual import VirtualMachines

        return VirtualMachines(tell)
    if kind is Kind.CONTAINER:
        from bailee.sandbox.containers import Containers

        return Containers()
    from bailee.sandbox.namespaces import Namespaces

    return Namespaces()


def is_emulated(kind: str) -> bool:
    """Tell whether machines of a kind are emulated here, and so take their time."""
    if kind != Kind.VM:
        return False
    from bailee.sandbox import virtual

    return virtual.is_emulated()


def choose_kind(asked: str, make: Callable[[Kind], Isolation] = make_isolation) -> Kind:
    """Return the kind that was asked for, or for `auto` the strongest that can be made here.

    Args:
        make: see `make_isolation`.

    Raises:
        Problem: it cannot be made here; for `auto`: none can.
    """
    if asked != AUTO:
        kind = Kind(asked)
        make(kind).check()
        return kind
    refused: Problem | None = None
    for kind in Kind:
        try:
            make(kind).check()
        except Problem as problem:
            refused = problem
        else:
            return kind
    assert refused is not None
    raise refused
