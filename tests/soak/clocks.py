"""One clock for all processes of a soak, which the driver sets ahead by days, so that things come due."""

import time
from datetime import UTC, date, datetime
from pathlib import Path

DAY_SECONDS = 86_400
VARIABLE = "SOAK_CLOCK"

# Runs first in every process of Bailee: `changes` of `counterparts.services.Service`.
SHIFTED = f"""
import os, time
_read, _file = time.time, os.open(os.environ[{VARIABLE!r}], os.O_RDONLY)
time.time = lambda: _read() + int.from_bytes(os.pread(_file, 8, 0), "big")
"""
# The service's own look for work asks for the day in another way, and seldom.
SHIFTED_IN_SERVICE = f"""{SHIFTED}
import datetime
from bailee.service import sweeping
from bailee.vault import health, recording
recording.RESTART_SECONDS = 0.2
class _Shifted(datetime.datetime):
    @classmethod
    def now(cls, zone=None):
        return cls.fromtimestamp(time.time(), zone)
health.datetime = _Shifted
sweeping.LOOK_SECONDS = 2.0
"""


class SharedClock:
    """The machine's clock, set ahead by whole days.

    Args:
        path: the file that tells all processes by how much.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._days = 0
        self.advance(0)

    def advance(self, days: int) -> None:
        """Set the clock ahead, for all processes at once."""
        seconds = ((self._days + days) * DAY_SECONDS).to_bytes(8, "big")
        if self.path.exists():
            with self.path.open("r+b") as file:  # one write of eight bytes: nobody reads half of it
                file.write(seconds)
        else:
            self.path.write_bytes(seconds)
        self._days += days  # last: clients' days are never ahead of the service's

    def __call__(self) -> float:
        """Return seconds since 1970 UTC."""
        return time.time() + self._days * DAY_SECONDS

    def today(self) -> date:
        """Return the UTC day."""
        return datetime.fromtimestamp(self(), UTC).date()
