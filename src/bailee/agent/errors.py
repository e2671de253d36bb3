"""Reports the agent's own faults: class and place, and no text."""

import contextlib
import time
from collections.abc import Iterator

from bailee import __version__
from bailee.agent.telemetry import Store, Upload
from bailee.agent.work import Work
from bailee.policy.flows import FlowId
from bailee.policy.problems import Problem

SECONDS = 2.0


@contextlib.contextmanager
def reporting_faults(work: Work) -> Iterator[None]:
    """Report what is nobody's but the agent's own fault, and tell it in a line.

    What a person can mend (`Problem`), what the system refuses (`OSError`), and what ends the program are no
    faults.

    Raises:
        Problem: naming class and place.
    """
    try:
        yield
    except (Problem, OSError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] == "click":
            raise
        became = "reported: class and place, no text" if report(work, error) else "not reported"
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}" if place else ""
        raise Problem(
            f"the agent met a fault of its own: {type(error).__name__} ({became})",
            where=where,
            fix="go on with: bailee code --continue; what was said is kept, as ever",
        ) from error


def report(work: Work, error: BaseException) -> bool:
    """Report a fault where it may be; tell whether it was taken. An exact copy is kept, as of metrics."""
    service = work.service
    is_sent = work.decision(FlowId.ERRORS).allowed and not work.is_incognito and not work.is_first
    if service is None or not is_sent:
        return False
    try:
        from bailee.flows.errors.sender import PATH, write_report
    except ImportError:
        return False
    body = write_report(error, agent="bailee", version=__version__, now=time.time())
    if body is None:
        return False
    # Nobody waits for it, and no failure of it hides the fault itself.
    with contextlib.suppress(OSError, Problem):
        status = service.post(PATH, body, work.environment, seconds=SECONDS)
        upload = Upload(time.time_ns() // 1_000_000, PATH, status, len(body), service.place)
        Store(work.state).keep(upload, body)
        return status == 200
    return False
