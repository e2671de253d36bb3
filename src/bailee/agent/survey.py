"""When a session is asked how it goes, and what becomes of the answer. Nothing here sees the conversation."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from bailee.agent.state import make_private
from bailee.files import replace_file
from bailee.flows.survey.ratings import Rating

FILE = "survey.json"
FIRST_TURN = 3  # before that there is nothing to rate
QUESTION = (
    "How is the session going? /rate 1 (badly), /rate 2 (fine), /rate 3 (well), /rate dismiss; "
    "/rate never: not to be asked again. Only the rating is sent."
)


class Asked(msgspec.Struct, frozen=True):
    """What is remembered on this machine: that somebody does not want to be asked."""

    never: bool = False


class Survey:
    """The survey of one session.

    Args:
        rate: how likely a session is asked, from 0 to 1.
        send: sends a rating; None where there is nowhere to, or it is not allowed.
        random: gives a number from 0 up to 1.

    Attributes:
        is_rated: whether a rating of this session was taken.
    """

    def __init__(
        self, state: Path, rate: float, send: Callable[[Rating], bool] | None, *, random: Callable[[], float]
    ) -> None:
        self._state = state
        self._send = send
        self.is_rated = False
        self._turns = 0
        # Drawn once for a session: asking again after each turn would make it likelier with every one.
        self._is_chosen = send is not None and random() < rate and not read_asked(state).never
        self.is_open = False

    def end_turn(self) -> bool:
        """Count a turn and tell whether the question is to be shown now; it is shown once."""
        self._turns += 1
        if self._is_chosen and self._turns == FIRST_TURN:
            self.is_open = True
            return True
        return False

    def answer(self, rating: Rating) -> bool:
        """Send a rating and tell whether it was taken; a session is rated once."""
        if self._send is None:
            return False
        self.is_open = self._is_chosen = False
        send, self._send = self._send, None
        self.is_rated = send(rating)
        return self.is_rated

    def never(self) -> None:
        """Do not ask again on this machine."""
        self.is_open = self._is_chosen = False
        make_private(self._state)
        replace_file(self._state / FILE, msgspec.json.encode(Asked(never=True)))


def read_asked(state: Path) -> Asked:
    """Return what is remembered. What cannot be understood was a refusal: nothing else is written there."""
    try:
        return msgspec.json.decode((state / FILE).read_bytes(), type=Asked)
    except FileNotFoundError:
        return Asked()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return Asked(never=True)
