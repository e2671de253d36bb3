"""What pages tell an account holder of what is held of them, column by column, compared with the vault."""

from datetime import UTC, date, datetime, timedelta
from itertools import count

import pytest

from bailee.accounts.directory import open_directory
from bailee.accounts.keys import create_key
from bailee.accounts.tables import KeyOrigin
from bailee.console.rendering import days_left
from bailee.policy.flows import FlowId
from bailee.policy.plans import Plan
from bailee.vault.custody import open_custody
from bailee.vault.reader import Session, list_sessions
from bailee.vault.store import open_vault
from console.cast import Cast
from console.tables import read_table
from counterparts.holdings import wait_until_ended
from counterparts.waiting import wait_for

DATA, PRIVACY, FEEDBACK = "/console/data", "/console/privacy", "/console/feedback"


_NUMBERS = count(1)


@pytest.fixture
def holder(cast: Cast) -> Cast:
    """Give an account of its own, whose holder alone chooses."""
    name = f"nina-{next(_NUMBERS)}"
    found = Cast(cast.home, cast.service)
    directory = open_directory(cast.home)
    found.ids["nina"] = directory.add(name, Plan.PRO).id
    found.keys["nina"] = create_key(directory, name, origin=KeyOrigin.OTHER, made_by="runner")[1]
    directory.close()
    found.tokens["nina"] = found.sign_in("nina")
    return found


def say(holder: Cast, session: str) -> str:
    """Say something as the holder's agent in a session of the holder's, and return its id."""
    id = f"{holder.ids['nina'][:8]}-{session}"
    holder.say("nina", id, f"said in {session}")
    wait_until_ended(holder.home, id)
    return id


def choose(holder: Cast, what: str, **fields: str) -> None:
    """Have the holder choose under Privacy."""
    assert holder.send_form(f"{PRIVACY}/{what}", "nina", **fields)[0] == 303


def read_vault(holder: Cast, flow: FlowId = FlowId.MESSAGES) -> dict[str, Session]:
    """Return what the vault holds of the holder."""
    vault = open_vault(holder.home)
    found = {one.id: one for one in list_sessions(vault, account=holder.ids["nina"], flow=flow)}
    vault.dispose()
    return found


def read(holder: Cast, path: str, first: str) -> dict[str, dict[str, str]]:
    """Return the rows of a table of the holder's pages."""
    return read_table(holder.ask("GET", path, "nina")[1], first)


def tell_days(days: int) -> str:
    """Write so many days as pages do."""
    return "1 day" if days == 1 else f"{days} days"


def test_what_may_train_is_told_of_each_session(holder: Cast) -> None:
    """What was said with training on has "yes", what was said without "no"; switched off, none has "yes"."""
    before = say(holder, "before")
    choose(holder, "training", to="on")
    during = say(holder, "during")
    told = read(holder, DATA, "Session")
    assert {id: row["Trains"] for id, row in told.items()} == {before: "no", during: "yes"}
    for id, words in ((before, "trains no model"), (during, "may train models")):
        assert words in holder.ask("GET", f"{DATA}/session/{id}", "nina")[1]
    assert read(holder, PRIVACY, "Flow")["messages"]["May train"] == "1"
    choose(holder, "training", to="off")
    after = say(holder, "after")
    told = read(holder, DATA, "Session")
    assert {id: row["Trains"] for id, row in told.items()} == dict.fromkeys((before, during, after), "no")
    assert read(holder, PRIVACY, "Flow")["messages"]["May train"] == "0"
    assert "trains no model" in holder.ask("GET", f"{DATA}/session/{during}", "nina")[1]


def test_the_day_that_each_session_goes_is_told(holder: Cast) -> None:
    """Of a week, of thirty days and of five years: its day, and the days until then, as the vault has them;
    of them all the first and the last.
    """
    sessions = {}
    choose(holder, "retention", period="7d")
    sessions[say(holder, "week")] = "7d"
    choose(holder, "retention", period="unlimited")
    sessions[say(holder, "month")] = "30d"
    choose(holder, "training", to="on")
    sessions[say(holder, "years")] = "5y"
    today, told, held = datetime.now(UTC).date(), read(holder, DATA, "Session"), read_vault(holder)
    assert {id: row["Kept"] for id, row in told.items()} == sessions
    days = {}
    for id, row in told.items():
        goes = held[id].expires_on
        assert goes is not None
        assert (row["Goes"], row["Days left"]) == (goes.isoformat(), tell_days((goes - today).days))
        shown = holder.ask("GET", f"{DATA}/session/{id}", "nina")[1]
        assert f"<strong>{row['Days left']}</strong> <span>left</span>" in shown
        assert f"until {goes}" in shown
        days[sessions[id]] = goes
    assert (days["7d"], days["30d"]) == (today + timedelta(7), today + timedelta(30))
    (row,) = read(holder, PRIVACY, "Flow").values()
    assert (row["First goes"], row["Last goes"]) == (str(days["7d"]), str(days["5y"]))
    assert row["Days left"] == tell_days((days["5y"] - today).days)
    assert (row["Sessions"], row["Segments"]) == ("3", "3")


def test_the_day_that_a_report_goes_is_told(holder: Cast) -> None:
    """As the vault has it, in the list, on its page and under Privacy; a week where the holder says so."""
    session = say(holder, "first")
    report = holder.send_report("nina", session, "it hangs")

    def is_told(goes: date, today: date) -> None:
        left = tell_days((goes - today).days)
        row = read(holder, FEEDBACK, "Report")[report]
        assert (row["Goes"], row["Days left"]) == (goes.isoformat(), left)
        shown = holder.ask("GET", f"{FEEDBACK}/{report}", "nina")[1]
        assert f"<strong>{left}</strong> <span>left</span>" in shown
        row = read(holder, PRIVACY, "Flow")["feedback"]
        assert (row["First goes"], row["Last goes"], row["Days left"]) == (str(goes), str(goes), left)

    for limit, period in (("unlimited", "5y"), ("7d", "7d")):
        choose(holder, "retention", period=limit)
        held = wait_for("the report", lambda: read_vault(holder, FlowId.FEEDBACK).get(report))
        assert held.expires_on is not None
        assert held.retention == period
        is_told(held.expires_on, datetime.now(UTC).date())
    assert held.expires_on == datetime.now(UTC).date() + timedelta(7)


def test_what_keeps_nothing_has_no_days_left(holder: Cast) -> None:
    """Said where nothing is kept, a session is listed with neither a day nor days."""
    choose(holder, "retention", period="none")
    id = say(holder, "nothing")
    row = read(holder, DATA, "Session")[id]
    assert (row["Kept"], row["Goes"], row["Days left"]) == ("none", "no content held", "no content held")
    assert "no content is held of it" in holder.ask("GET", f"{DATA}/session/{id}", "nina")[1]


@pytest.mark.parametrize(
    ("day", "words"),
    [
        (None, "no end"),
        (date(2031, 5, 4), "1826 days"),
        (date(2026, 6, 3), "30 days"),
        (date(2026, 5, 5), "1 day"),
        (date(2026, 5, 4), "today"),
        (date(2026, 5, 3), "today"),
    ],
)
def test_days_are_counted_to_the_day_that_it_goes(day: date | None, words: str) -> None:
    """A thing goes as its day begins; what should have gone goes today, with the next sweep."""
    assert days_left(day, date(2026, 5, 4)) == words


@pytest.mark.parametrize("many", [0, 1, 50, 51, 120])
def test_who_read_it_is_told_and_how_many_more_there_are(holder: Cast, many: int) -> None:
    """The fifty latest readings are shown; where there are more it is said of how many, and where all are."""
    custody = open_custody(holder.home)
    for number in range(many):
        custody.record_access(
            holder.ids["nina"], None, reader="olga", purpose="review", reason=f"case {number}"
        )
    custody.close()
    section = holder.ask("GET", PRIVACY, "nina")[1].partition("Who else read what you said")[2]
    reasons = [f"case {number}" for number in reversed(range(many))]
    assert [one for one in reasons if f">{one}<" in section] == reasons[:50]
    is_cut = many > 50
    assert (f"the last 50 of {many} are shown" in section, "Export everything" in section) == (is_cut, is_cut)
    assert ("Nobody but you has read anything." in section) == (many == 0)
