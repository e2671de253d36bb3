"""What pages tell an account holder of what is held of them, column by column, compared with the vault."""

import html
import re
from collections.abc import Iterator
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
from console.cast import Cast, found_organization
from console.tables import read_facts, read_table
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


def say_with_each_period(holder: Cast) -> dict[str, str]:
    """Have a session of a week, one of thirty days, and one of five years, which may train."""
    sessions = {}
    choose(holder, "retention", period="7d")
    sessions[say(holder, "week")] = "7d"
    choose(holder, "retention", period="unlimited")
    sessions[say(holder, "month")] = "30d"
    choose(holder, "training", to="on")
    sessions[say(holder, "years")] = "5y"
    return sessions


def test_the_day_that_each_session_goes_is_told(holder: Cast) -> None:
    """Of a week, of thirty days and of five years: its day, and the days until then, as the vault has them;
    of them all the first and the last.
    """
    sessions = say_with_each_period(holder)
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


def test_what_a_change_does_is_told_in_numbers(holder: Cast) -> None:
    """How many segments go, are held for less long and train no more, and when the last goes; asked about,
    nothing of it is done.
    """
    sessions = {period: id for id, period in say_with_each_period(holder).items()}
    held, today = read_vault(holder), datetime.now(UTC).date()
    years = held[sessions["5y"]].expires_on

    def ask(query: str) -> tuple[str, dict[str, str]]:
        told = holder.ask("GET", f"{PRIVACY}/{query}", "nina")[1]
        return told.partition('class="big"><strong>')[2].partition("<")[0], read_facts(told)

    now = {"Held now": f"3 segments, the last goes {years}"}
    gone = "keys destroyed before the next page is there, and no way back"
    for query, leads, facts in (
        (
            "retention?period=20d",
            "0",
            {
                "Trains no more": None,
                "Gone at once": "0 segments",
                "Held for less long": "2 segments",
                "The last goes then": str(today + timedelta(20)),
            },
        ),
        (
            "retention?period=none",
            "3",
            {"Gone at once": f"3 segments: {gone}", "Held for less long": "0 segments"},
        ),
        (
            "training?to=off",
            "1",
            {
                "Trains no more": "1 segment, at once",
                "Gone at once": "0 segments",
                "Held for less long": "1 segment",
                "The last goes then": str(today + timedelta(30)),
            },
        ),
        (
            "retention?period=10y",
            "0",
            {"Held for less long": "0 segments", "The last goes then": f"{years}, as before"},
        ),
    ):
        led, told = ask(query)
        assert (led, told | now) == (leads, told), query
        assert {term: told.get(term) for term in facts} == facts, query
    assert read_vault(holder) == held


def test_whose_limit_counts_is_told(cast: Cast) -> None:
    """The plan's, the organization's or the holder's own, under Privacy and to the admin; what is said comes
    under the shortest, and a longer wish of the holder's under the organization's.
    """
    organization = found_organization(cast.home, cast.service, "limits")
    kept = {}

    def say_and_read(session: str) -> str:
        organization.say("member", session, "said")
        wait_until_ended(organization.home, session)
        rows = read_table(organization.ask("GET", DATA, "member")[1], "Session")
        kept[session] = rows[session]["Kept"]
        assert {id: row["Kept"] for id, row in rows.items()} == kept  # nothing is held longer later on
        return organization.ask("GET", PRIVACY, "member")[1]

    def read_own() -> str:
        told = organization.ask("GET", "/console/organization", "admin")[1]
        return read_table(told, "Member")["limits-member"]["Own limit"]

    assert "As your plan, team, has it: 30d." in say_and_read("limits-plan")
    # What is longer than the plan's own lengthens nothing.
    assert organization.send_form("/console/organization/retention", "admin", period="90d")[0] == 303
    told = say_and_read("limits-longer")
    assert "Your organization says at most 90d." in told
    assert kept == {"limits-plan": "30d", "limits-longer": "30d"}
    fields = {"period": "20d"}
    assert organization.send_form("/console/organization/retention", "admin", **fields)[0] == 303
    kept.update(dict.fromkeys(kept, "20d"))
    assert "Your organization says at most 20d." in say_and_read("limits-organization")
    assert kept["limits-organization"] == "20d"
    assert read_own() == "–"
    assert organization.send_form(f"{PRIVACY}/retention", "member", period="7d")[0] == 303
    kept.update(dict.fromkeys(kept, "7d"))
    assert "At most <strong>7d</strong>, as you wished." in say_and_read("limits-own")
    assert (kept["limits-own"], read_own()) == ("7d", "7d")
    assert organization.send_form(f"{PRIVACY}/retention", "member", period="unlimited")[0] == 303
    say_and_read("limits-after")
    assert (kept["limits-after"], kept["limits-own"], read_own()) == ("20d", "7d", "–")


def test_who_refuses_is_told(cast: Cast) -> None:
    """The member, the organization or both; what the organization refuses, no member lets pass."""
    organization = found_organization(cast.home, cast.service, "refusals")

    def refuse(person: str, to: str) -> tuple[str, str]:
        """Refuse metrics, or let them pass; return what the member is told, and the admin."""
        place, act = (
            ("/console/organization", {"act": "flow"}) if person == "admin" else (f"{PRIVACY}/flows", {})
        )
        assert organization.send_form(place, person, flow="metrics", to=to, **act)[0] == 303
        told = [
            read_table(organization.ask("GET", path, one)[1], "Flow")
            for path, one in ((PRIVACY, "member"), ("/console/organization", "admin"))
        ]
        # The same table stands below the one of what is held, where something is.
        title = next(one for one in told[0] if "etrics" in one)
        return told[0][title]["Now"], told[1][title]["Now"]

    assert refuse("member", "refused") == ("refused by you", "taken")
    assert refuse("admin", "refused") == ("refused by you", "refused")
    assert refuse("member", "taken") == ("refused by your organization", "refused")
    assert refuse("member", "taken") == ("refused by your organization", "refused")
    assert refuse("admin", "taken") == ("taken", "taken")


def test_all_that_is_held_is_reached_page_by_page(holder: Cast) -> None:
    """Older sessions and later turns are a link away: each of them is on one page, none on two."""
    for number in range(52):
        holder.say("nina", f"nina-{number:02}", "said")
    for number in range(22):
        holder.say("nina", "nina-long", f"turn {number} of it")
    wait_for(
        "all of it",
        lambda: sum(one.exchanges for one in read_vault(holder).values()) == 74 or None,
    )

    def follow(path: str, words: str) -> Iterator[str]:
        """Give a page, and those that a link of these words leads to, one after the other."""
        while path:
            told = holder.ask("GET", path, "nina")[1]
            yield told
            before = told.partition(f'">{words}</a>')
            path = html.unescape(before[0].rpartition('href="')[2]) if before[1] else ""

    pages = [list(read_table(told, "Session")) for told in follow(DATA, "Older ones")]
    assert [len(page) for page in pages] == [50, 3]
    assert sorted(id for page in pages for id in page) == sorted(read_vault(holder))
    assert pages[0][0] == "nina-long"
    turns = [
        re.findall(r"turn \d+ of it", told) for told in follow(f"{DATA}/session/nina-long", "Later turns")
    ]
    assert len(turns) == 2
    assert list(dict.fromkeys(one for page in turns for one in page)) == [
        f"turn {n} of it" for n in range(22)
    ]
    assert not set(turns[0]) & set(turns[1])


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
