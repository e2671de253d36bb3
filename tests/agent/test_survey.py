"""The survey in the agent: asked as seldom as set, answered by a command only, off where switched off."""

from pathlib import Path

import pytest

from bailee.agent.survey import FIRST_TURN, Survey
from bailee.flows.survey.ratings import Rating


class Sent(list[Rating]):
    def __call__(self, rating: Rating) -> bool:
        self.append(rating)
        return True


def asked_in(survey: Survey, turns: int = 20) -> list[int]:
    return [turn for turn in range(1, turns + 1) if survey.end_turn()]


@pytest.mark.parametrize(
    ("drawn", "asked"), [(0.0, [FIRST_TURN]), (0.049, [FIRST_TURN]), (0.05, []), (0.99, [])]
)
def test_it_is_asked_as_often_as_set(tmp_path: Path, drawn: float, asked: list[int]) -> None:
    """A session is drawn once, at the rate that is set, and asked once, after a few turns."""
    assert asked_in(Survey(tmp_path, 0.05, Sent(), random=lambda: drawn)) == asked


@pytest.mark.parametrize("rate", [0, 0.0])
def test_a_rate_of_0_never_asks(tmp_path: Path, rate: float) -> None:
    """With a rate of 0 no session is asked."""
    assert asked_in(Survey(tmp_path, rate, Sent(), random=lambda: 0.0)) == []


def test_without_a_way_to_send_it_is_not_asked(tmp_path: Path) -> None:
    """Switched off, or without a service, nobody is asked and nothing is sent."""
    survey = Survey(tmp_path, 1.0, None, random=lambda: 0.0)
    assert asked_in(survey) == []
    assert survey.answer(Rating.GOOD) is False


def test_a_session_is_rated_once(tmp_path: Path) -> None:
    """A second rating is not sent; a dismissal is sent as that."""
    sent = Sent()
    survey = Survey(tmp_path, 1.0, sent, random=lambda: 0.0)
    assert survey.answer(Rating.DISMISS) is True
    assert survey.answer(Rating.GOOD) is False
    assert sent == [Rating.DISMISS]
    assert asked_in(survey) == []


def test_never_is_remembered(tmp_path: Path) -> None:
    """`never` holds for every later session of the machine, also where its file is damaged."""
    sent = Sent()
    Survey(tmp_path, 1.0, sent, random=lambda: 0.0).never()
    assert asked_in(Survey(tmp_path, 1.0, sent, random=lambda: 0.0)) == []
    (tmp_path / "survey.json").write_bytes(b"{")
    assert asked_in(Survey(tmp_path, 1.0, sent, random=lambda: 0.0)) == []
    assert sent == []
