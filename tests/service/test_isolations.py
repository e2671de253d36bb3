"""Which kind of machine a session gets."""

import pytest

from bailee.policy.problems import Problem
from bailee.sandbox.machines import Begin, Isolation, Kind, Machine, Spec
from bailee.service.isolations import AUTO, choose_kind, make_isolation


class Refused:
    """A kind of machine that cannot be made."""

    address = "127.0.0.1"
    answers_itself = False

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def check(self) -> None:
        """Refuse."""
        raise Problem(f"no {self.kind} here", where="a test", fix="none")

    def create(self, spec: Spec, begin: Begin) -> Machine:
        """Make none."""
        raise AssertionError(self.kind)


class Possible(Refused):
    """A kind of machine that can be made."""

    def check(self) -> None:
        """Accept."""


@pytest.mark.parametrize("kind", Kind)
def test_the_strongest_that_can_be_made(kind: Kind) -> None:
    """`auto` takes it, and asks no weaker one; what is named is what one gets."""
    order = list(Kind)

    def make(asked: Kind) -> Isolation:
        assert order.index(asked) <= order.index(kind)
        return Possible(asked) if asked is kind else Refused(asked)

    assert choose_kind(AUTO, make) is kind
    assert choose_kind(kind.value, make) is kind


def test_none_is_weaker_than_asked() -> None:
    """A kind that is named and cannot be made is refused; so is `auto` where none can be."""

    def make(asked: Kind) -> Isolation:
        return Refused(asked) if asked is Kind.VM else Possible(asked)

    with pytest.raises(Problem, match="no vm here"):
        choose_kind("vm", make)
    with pytest.raises(Problem, match="no namespace here"):
        choose_kind(AUTO, Refused)


@pytest.mark.parametrize("kind", Kind)
def test_each_kind_is_made(kind: Kind) -> None:
    """What makes machines of a kind says so itself."""
    assert make_isolation(kind).kind is kind
