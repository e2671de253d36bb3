"""One service, one cast and one browser for all tests of the console."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from console.browsers import Visitor, open_browser
from console.cast import Cast, make_cast, make_people
from console.filling import fill
from counterparts.services import serving


@pytest.fixture(scope="session")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cast]:
    """Give the cast, on a service with the rehearsal model."""
    folder = tmp_path_factory.mktemp("console")
    home = folder / "state"
    make_people(home)
    with serving(home, folder, "--upstream", "rehearsal") as service:
        made = make_cast(home, service)
        fill(made)
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Give the browser: as long as it is open an event loop runs in this thread, which other tests start."""
    with open_browser() as found:
        yield found


@pytest.fixture
def visit(browser: Browser, cast: Cast) -> Iterator[Callable[..., Visitor]]:
    """Open a window for one of the cast; afterwards nothing foreign was asked for, and no script failed."""
    opened: list[Visitor] = []

    def open_for(person: str, **options: Any) -> Visitor:
        opened.append(Visitor(browser, cast, person, **options))
        return opened[-1]

    yield open_for
    for visitor in opened:
        visitor.close()
    assert [visitor.foreign() for visitor in opened] == [[] for _ in opened]
    assert [visitor.faults for visitor in opened] == [[] for _ in opened]
