"""How far an organization's admin reaches: to the members of their own, and to nobody besides; and what they
cannot take back goes only where they write the organization's name.
"""

from urllib.parse import unquote

import pytest

from console.cast import Cast, found_organization
from counterparts.holdings import wait_until_ended

HOME = "/console/organization"


@pytest.fixture(scope="module")
def other(cast: Cast) -> Cast:
    """Give another organization on the same service, of an admin and a member who said something."""
    found = found_organization(cast.home, cast.service, "umbrella")
    found.say("member", "umbrella-first", "said at umbrella")
    wait_until_ended(cast.home, "umbrella-first")
    return found


def name_key(key: str) -> str:
    """Return the id of a key, by which pages name it."""
    return key.split("_")[1]


def read_main(organization: Cast, path: str) -> str:
    """Return what a page shows an admin, without its foot, which tells the minute."""
    return organization.ask("GET", path, "admin")[1].partition("<main")[2].partition("</main>")[0]


def opens(organization: Cast, person: str) -> bool:
    """Tell whether a key of somebody's opens anything."""
    bearer = {"authorization": f"Bearer {organization.keys[person]}"}
    return organization.ask("GET", "/api/account", **bearer)[0] == 200


def find_hold(organization: Cast) -> str:
    """Return the id of the hold that an organization's page shows first."""
    told = organization.ask("GET", f"{HOME}/holds", "admin")[1]
    return told.partition("holds/release?hold=")[2].partition('"')[0]


# --- The organization's name ---


def is_read(organization: Cast, session: str, words: str) -> bool:
    """Tell whether the member still reads what was said in a session."""
    return words in organization.ask("GET", f"/console/data/session/{session}", "member")[1]


def test_keeping_nothing_takes_the_organizations_name(cast: Cast) -> None:
    """Without it, or with another's, a limit by which something would go changes nothing; with it, it goes.
    A limit by which nothing goes takes no name.
    """
    organization = found_organization(cast.home, cast.service, "tyrell")
    organization.say("member", "tyrell-first", "said at tyrell")
    wait_until_ended(cast.home, "tyrell-first")
    place = f"{HOME}/retention"
    for name in ({}, {"name": ""}, {"name": "acme"}, {"name": "tyrel"}):
        status, told = organization.send_form(place, "admin", period="none", **name)
        assert (status, "what members hold would be erased" in told) == (400, True), name
    assert "As the plan has it" in organization.ask("GET", HOME, "admin")[1]
    assert is_read(organization, "tyrell-first", "said at tyrell")
    assert organization.send_form(place, "admin", period="20d")[0] == 303
    assert is_read(organization, "tyrell-first", "said at tyrell")
    assert organization.send_form(place, "admin", period="none", name="tyrell")[0] == 303
    assert not is_read(organization, "tyrell-first", "said at tyrell")


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/retention", {"period": "none"}), ("/switch", {"what": "zdr", "to": "on"})],
    ids=["limit", "zero-data-retention"],
)
def test_what_a_hold_alone_keeps_takes_the_name_too(cast: Cast, path: str, fields: dict[str, str]) -> None:
    """Where all that would go is under a legal hold, it goes once that is released: the page asks for the
    name, and without it nothing is changed.
    """
    name = f"weyland{path.replace('/', '-')}"
    organization = found_organization(cast.home, cast.service, name)
    organization.say("member", f"{name}-first", "said at weyland")
    wait_until_ended(cast.home, f"{name}-first")
    holding = {"member": f"{name}-member", "reason": "case 3"}
    assert organization.send_form(f"{HOME}/holds", "admin", **holding)[0] == 303
    query = "&".join(f"{key}={value}" for key, value in fields.items())
    shown = organization.ask("GET", f"{HOME}{path}?{query}", "admin")[1]
    assert "Write the name of your organization to confirm" in shown
    assert "all of them then go at once" in shown
    status, told = organization.send_form(f"{HOME}{path}", "admin", **fields)
    assert (status, "what members hold would be erased" in told) == (400, True)
    hold = find_hold(organization)
    release = {"hold": hold, "reason": "settled"}
    assert organization.send_form(f"{HOME}/holds/release", "admin", **release)[0] == 303
    assert is_read(organization, f"{name}-first", "said at weyland")


def test_what_was_done_and_what_a_hold_left_is_said(cast: Cast) -> None:
    """Once a limit is in force the page says how much came under it, and how much of it a hold keeps; where
    nothing did it says neither.
    """
    organization = found_organization(cast.home, cast.service, "gringotts")
    for session in ("gringotts-first", "gringotts-second"):
        organization.say("member", session, "said at gringotts")
        wait_until_ended(cast.home, session)

    def limit(period: str) -> str:
        fields = {"period": period, "name": "gringotts"}
        return unquote(organization.press(f"{HOME}/retention", "admin", **fields)[2]["set-cookie"])

    holding = {"member": "gringotts-member", "session": "gringotts-first", "reason": "case 4"}
    placed = unquote(organization.press(f"{HOME}/holds", "admin", **holding)[2]["set-cookie"])
    assert "session gringotts-first of gringotts-member stays." in placed
    assert "Gone before it was placed" not in placed
    said = limit("none")
    assert "2 segments held already came under it, or went" in said
    assert "A legal hold keeps 1 segment until it is released." in said
    assert not is_read(organization, "gringotts-second", "said at gringotts")
    assert is_read(organization, "gringotts-first", "Legal hold")
    said = limit("none")
    assert "Nothing is held of members from now on." in said
    assert "came under it" not in said


# --- Members of another organization ---


def test_keys_of_others_are_neither_seen_nor_revoked(cast: Cast, other: Cast) -> None:
    """Of a stranger, a member of another organization and its admin: refused, and they still open; a key of
    a member's of one's own is revoked (control).
    """
    theirs = [(cast, "charlie"), (cast, "operator"), (other, "member"), (other, "admin")]
    shown = cast.ask("GET", f"{HOME}/keys", "admin")[1]
    assert name_key(cast.keys["bob"]) in shown
    for of, person in theirs:
        key = name_key(of.keys[person])
        assert key not in shown
        status, told = cast.send_form(f"{HOME}/keys/revoke", "admin", key=key)
        assert (status, "no member has such a key" in told) == (400, True), person
        assert opens(of, person)
    own = found_organization(cast.home, cast.service, "cyberdyne")
    assert own.send_form(f"{HOME}/keys/revoke", "admin", key=name_key(own.keys["member"]))[0] == 303
    assert not opens(own, "member")
    shown = own.ask("GET", f"{HOME}/keys", "admin")[1]
    assert name_key(own.keys["member"]) not in shown
    assert "1 revoked or expired ones are left out" in shown


def test_holds_of_others_are_neither_seen_nor_released(cast: Cast, other: Cast) -> None:
    """Another organization's hold is refused and goes on; its own admin releases it (control)."""
    holding = {"member": "umbrella-member", "reason": "a case of umbrella's"}
    assert other.send_form(f"{HOME}/holds", "admin", **holding)[0] == 303
    hold = find_hold(other)
    assert "a case of umbrella" not in cast.ask("GET", f"{HOME}/holds", "admin")[1]
    status, told = cast.send_form(f"{HOME}/holds/release", "admin", hold=hold, reason="none of mine")
    assert (status, "there is no such hold on a member" in told) == (400, True)
    erasing = "/console/data/session/umbrella-first/erase"
    status, told, _ = other.ask("GET", erasing, "member")
    assert (status, "hold" in told) == (400, True)
    own = {"hold": hold, "reason": "closed"}
    assert other.send_form(f"{HOME}/holds/release", "admin", **own)[0] == 303
    assert other.ask("GET", erasing, "member")[0] == 200


def test_members_of_others_keep_their_roles(cast: Cast, other: Cast) -> None:
    """An admin makes nobody elsewhere an admin, nor a member again, and adds none who is there already."""
    for member, role in (("umbrella-member", "admin"), ("umbrella-admin", "member"), ("charlie", "admin")):
        status, told = cast.send_form(HOME, "admin", act="role", member=member, role=role)
        assert (status, "is no member of" in told) == (400, True), member
    status, told = cast.send_form(HOME, "admin", act="add", member="umbrella-member")
    assert (status, "there is an account" in told) == (400, True)
    assert [other.ask("GET", HOME, person)[0] for person in ("admin", "member")] == [200, 404]
    assert "umbrella" not in cast.ask("GET", HOME, "admin")[1]


def test_members_of_others_are_neither_suspended_nor_let_in(cast: Cast, other: Cast) -> None:
    """Whoever is in stays in; and whom their own admin suspended stays out until that one lets them in."""

    def suspend(by: Cast, member: str, to: str) -> tuple[int, str]:
        return by.send_form(HOME, "admin", act="suspend", member=member, to=to)

    for member in ("umbrella-member", "charlie"):
        status, told = suspend(cast, member, "on")
        assert (status, "is no member of" in told) == (400, True), member
    assert opens(other, "member")
    assert opens(cast, "charlie")
    assert suspend(other, "umbrella-member", "on")[0] == 303
    status, told = suspend(cast, "umbrella-member", "off")
    assert (status, "is no member of" in told) == (400, True)
    assert not opens(other, "member")
    assert suspend(other, "umbrella-member", "off")[0] == 303
    assert opens(other, "member")
    other.tokens["member"] = other.sign_in("member")


def test_secrets_of_others_are_neither_seen_nor_removed(cast: Cast, other: Cast) -> None:
    """Removed by another organization's admin it is told that there is none, and there it is still."""
    secret = {"name": "UMBRELLA_TOKEN", "value": "token-0123456789abcdef", "hosts": "registry.example"}
    assert other.send_form(f"{HOME}/secrets", "admin", **secret)[0] == 303
    assert "UMBRELLA_TOKEN" not in cast.ask("GET", f"{HOME}/secrets", "admin")[1]
    removing = {"name": "UMBRELLA_TOKEN", "repository": ""}
    status, told = cast.send_form(f"{HOME}/secrets/remove", "admin", **removing)
    assert (status, "there is no secret UMBRELLA_TOKEN" in told) == (400, True)
    assert "UMBRELLA_TOKEN" in other.ask("GET", f"{HOME}/secrets", "admin")[1]
    assert other.send_form(f"{HOME}/secrets/remove", "admin", **removing)[0] == 303
    assert "UMBRELLA_TOKEN" not in other.ask("GET", f"{HOME}/secrets", "admin")[1]


def test_an_admin_changes_nothing_for_another_organization(cast: Cast, other: Cast) -> None:
    """Where a member of acme worked, what acme's agents are served, what acme refuses: not umbrella's."""
    assert "git.example" in cast.ask("GET", f"{HOME}/repositories", "admin")[1]  # control
    assert "git.example" not in other.ask("GET", f"{HOME}/repositories", "admin")[1]
    sent = {"settings": '{"telemetry": "off"}', "tag": ""}
    shown = other.ask("GET", f"{HOME}/settings", "admin")[1]
    tag = shown.partition('name="tag" value="')[2].partition('"><')[0].replace("&#34;", '"')
    before = cast.ask("GET", "/api/settings", authorization=f"Bearer {cast.keys['alice']}")[1]
    assert other.send_form(f"{HOME}/settings", "admin", **{**sent, "tag": tag})[0] == 303
    served = {
        person: of.ask("GET", "/api/settings", authorization=f"Bearer {of.keys[person]}")[1]
        for of, person in ((cast, "alice"), (other, "member"))
    }
    assert served == {"alice": before, "member": '{"telemetry": "off"}\n'}
    refusing = {"act": "flow", "flow": "metrics", "to": "refused"}
    assert other.send_form(HOME, "admin", **refusing)[0] == 303
    told = {
        person: "refused by your organization" in of.ask("GET", "/console/privacy", person)[1]
        for of, person in ((cast, "alice"), (other, "member"))
    }
    assert told == {"alice": False, "member": True}


def test_a_limit_is_for_members_of_ones_own(cast: Cast, other: Cast) -> None:
    """An organization that holds nothing is told so, and its limit leaves what others hold."""
    organization = found_organization(cast.home, cast.service, "soylent")
    told = organization.ask("GET", f"{HOME}/retention?period=none", "admin")[1]
    assert "Nothing is held that it would change." in told
    assert organization.send_form(f"{HOME}/retention", "admin", period="none")[0] == 303
    assert is_read(other, "umbrella-first", "said at umbrella")


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        (HOME, {"act": "role", "member": "alice", "role": "owner"}, "there is no such role"),
        (HOME, {"act": "erase", "member": "alice"}, "there is no such thing to do"),
        (HOME, {"act": "flow", "flow": "messages", "to": "refused"}, "there is no such choice"),
        (HOME, {"act": "flow", "flow": "metrics", "to": "off"}, "there is no such choice"),
        (f"{HOME}/switch", {"what": "training", "to": "on"}, "there is no such switch"),
        (f"{HOME}/switch", {"what": "zdr", "to": "yes", "name": "acme"}, "there is no such switch"),
        (f"{HOME}/retention", {"period": "0d", "name": "acme"}, "is not a retention period"),
        ("/console/privacy/training", {"to": "yes"}, "training is on or off"),
        ("/console/privacy/flows", {"flow": "messages", "to": "refused"}, "there is no such choice"),
    ],
)
def test_what_no_page_offers_is_refused(cast: Cast, path: str, fields: dict[str, str], words: str) -> None:
    """Sent all the same it is told to be none, and changes nothing."""
    before = [read_main(cast, place) for place in (HOME, "/console/privacy")]
    assert all(before)
    status, told = cast.send_form(path, "admin", **fields)
    assert (status, words in told) == (400, True)
    assert [read_main(cast, place) for place in (HOME, "/console/privacy")] == before
