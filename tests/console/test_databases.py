"""Every page on either database: what is asked of one is answered by the other."""

from pathlib import Path

from bailee.service.console import make_pages
from console.cast import SESSIONS, make_cast, make_people
from counterparts.services import serving


def test_every_page_is_drawn_from_either_database(database: str, tmp_path: Path) -> None:
    """With SQLite and PostgreSQL holder, admin and operator get their pages, and an erasure its receipt."""
    home = tmp_path / "state"
    make_people(home)
    with serving(home, tmp_path, "--upstream", "rehearsal") as service:
        cast = make_cast(home, service)
        for page in make_pages():
            if page.show is None or "{" in page.path or page.path.endswith("/events"):
                continue
            answers = {person: cast.ask("GET", page.path, person)[0] for person in cast.tokens}
            assert set(answers.values()) <= {200, 303, 400, 404}, f"{page.path}: {answers}"
            # Of what takes a choice first the choice is missing.
            assert 200 in answers.values() or 303 in answers.values() or page.path.endswith("/switch")
        token = cast.ask("GET", "/console/privacy", "bob")[1].partition('form_token" value="')[2][:64]
        form = {"content-type": "application/x-www-form-urlencoded"}
        path = f"/console/data/session/{SESSIONS['bob']}"
        assert "bob said" in cast.ask("GET", path, "bob")[1]
        status, told, _ = cast.ask("POST", f"{path}/erase", "bob", f"form_token={token}", **form)
        assert (status, "Receipt" in told) == (200, True)
        switched = cast.ask(
            "POST", "/console/privacy/training", "charlie", f"form_token={token}&to=on", **form
        )[0]
        assert switched == 403  # Bob's token is not Charlie's
