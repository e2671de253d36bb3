"""A user who sits down at the agent: asks, reports a bug, rates, and quits.

As a program it starts a service of its own, whose model is on another port, and types into a real terminal.
It is meant to be run alone (`counterparts.networks`), where every connection of it is seen.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from counterparts.networks import Run
from counterparts.services import clean_environment, serving
from counterparts.terminals import Terminal, opening
from counterparts.waiting import wait_for

SERVICE_PORT, MODEL_PORT = 9778, 9779
URL = f"http://127.0.0.1:{SERVICE_PORT}"
ASKED, SEND = "Send this too?", "Type send to send it"
CANARY = "the smew of line 3"


@dataclass
class Sitting:
    """A user and their machine.

    Attributes:
        home: of the service.
        folder: of the user: `project`, `user` and `state` are in it.
        environment: of the agent.
        has_bugs, has_survey: whether a report, or a rating, is expected to be taken.
    """

    home: str
    folder: str
    environment: dict[str, str]
    has_bugs: bool
    has_survey: bool

    def to_run(self, name: str, environment: Mapping[str, str]) -> Run:
        """Return the command that sits down."""
        return Run(
            name,
            [sys.executable, "-m", "counterparts.sittings", json.dumps(asdict(self))],
            {**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
            self.folder,
        )


def _decline_attachments(terminal: Terminal) -> None:
    """Answer no as often as it asks, until the last question is there."""
    answered = 0

    def has_question() -> bool | None:
        return SEND in terminal.screen or terminal.screen.count(ASKED) > answered or None

    while wait_for("a question", has_question) and SEND not in terminal.screen:
        answered += 1
        terminal.type("no")


def sit(sitting: Sitting) -> None:
    """Do what a user does, and end everything."""
    folder = Path(sitting.folder)
    model = subprocess.Popen(
        [sys.executable, "-m", "bailee", "rehearse", "--port", str(MODEL_PORT)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=clean_environment(folder),
    )
    upstream = f"compatible=http://127.0.0.1:{MODEL_PORT}"
    options = ("--port", str(SERVICE_PORT), "--upstream", upstream, "--upstream-credential", "none")
    options += ("--upstream-zero-data-retention",)
    place = folder / "service"
    place.mkdir()
    try:
        with serving(Path(sitting.home), place, *options), opening(folder) as terminal:
            command = [sys.executable, "-m", "bailee", "code", "--model", "claude-rehearsal-1"]
            terminal.start(command, environment=sitting.environment, directory=folder / "project")
            terminal.wait("mode ask")
            terminal.type("rehearse greet")
            terminal.wait("tokens in")
            terminal.type(f"/bug {CANARY}")
            if sitting.has_bugs:
                _decline_attachments(terminal)
                terminal.type("send")
                terminal.wait("Sent: report report-")
            terminal.type("/rate 3")
            terminal.wait("Sent: 3" if sitting.has_survey else "the survey is switched off")
            terminal.type("/quit")
            terminal.wait_until_ended()
    finally:
        model.send_signal(signal.SIGINT)
        model.wait(10)


if __name__ == "__main__":
    sit(Sitting(**json.loads(sys.argv[1])))
