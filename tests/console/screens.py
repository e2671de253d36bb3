"""Pictures of every page, at the width of a desk and of a phone: `python -m console.screens docs/screens`."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from playwright.sync_api import Browser

from bailee.vault.custody import open_custody
from console.browsers import DESKTOP, PHONE, Visitor, open_browser
from console.cast import SESSIONS, Cast, make_cast, make_people
from console.filling import fill
from counterparts.services import serving

TALLEST = 1800
# What each is called, who looks, and where.
SCREENS: dict[str, tuple[str, str]] = {
    "sign-in": ("nobody", "/console/sign-in"),
    "sign-in-passkey": ("nobody", "{here}/console/sign-in"),
    "data-usage": ("nobody", "/data-usage"),
    "data-usage-of-claude-code": ("nobody", "/data-usage/claude-code"),
    "data-usage-of-codex": ("nobody", "/data-usage/codex"),
    "device": ("alice", "/oauth/device"),
    "account": ("alice", "/console/account"),
    "account-passkeys": ("alice", "{here}/console/account"),
    "privacy": ("charlie", "/console/privacy"),
    "training": ("charlie", "/console/privacy/training?to=on"),
    "retention-limit": ("alice", "/console/privacy/retention?period=7d"),
    "data": ("alice", "/console/data"),
    "data-of-web": ("alice", "/console/data?flow=web"),
    "session-of-web": ("alice", "/console/data/session/key-0000000000000000"),
    "session": ("alice", f"/console/data/session/{SESSIONS['alice']}"),
    "erase": ("alice", f"/console/data/session/{SESSIONS['alice']}/erase"),
    "erase-everything": ("alice", "/console/data/erase"),
    "feedback": ("alice", "/console/feedback"),
    "report": ("alice", "/console/feedback/{report}"),
    "withdraw": ("alice", "/console/feedback/{report}/withdraw"),
    "receipts": ("alice", "/console/receipts"),
    "ledger": ("operator", "/console/ledger"),
    "organization": ("admin", "/console/organization"),
    "zero-data-retention": ("admin", "/console/organization/switch?what=zdr&to=on"),
    "partner-program": ("admin", "/console/organization/switch?what=dpp&to=on"),
    "organization-limit": ("admin", "/console/organization/retention?period=1d"),
    "keys": ("admin", "/console/organization/keys"),
    "holds": ("admin", "/console/organization/holds"),
    "secrets": ("admin", "/console/organization/secrets"),
    "repositories": ("admin", "/console/organization/repositories"),
    "identity-provider": ("admin", "{here}/console/organization/sign-in"),
    "managed-settings": ("admin", "/console/organization/settings"),
    "flows": ("operator", "/console/flows"),
    "model-traffic": ("operator", "/console/flows/messages"),
    "metrics": ("operator", "/console/flows/metrics"),
    "errors": ("operator", "/console/flows/errors"),
    "error": ("operator", "/console/flows/errors/{error}"),
    "reports": ("operator", "/console/flows/feedback"),
    "survey": ("operator", "/console/flows/survey"),
    "egress": ("operator", "/console/flows/web"),
    "git": ("operator", "/console/flows/git"),
    "forwarding": ("operator", "/console/flows/forwarding"),
    "cloud": ("operator", "/console/cloud"),
    "cloud-session": ("alice", "/console/cloud/{cloud}"),
    "cloud-erase": ("alice", "/console/cloud/{cloud}/erase"),
    "retention": ("operator", "/console/retention"),
}


RELEASE = "/console/organization/holds/release"
# Called apart, last: for its hold, all other pages would show what is held of Bob as kept.
OF_A_HOLD = "hold-release"


def place(path: str, cast: Cast) -> str:
    """Return a path with what is in braces put in."""
    if "{error}" in path:
        listed = cast.ask("GET", "/console/flows/errors", "operator")[1]
        path = path.replace("{error}", listed.partition("/console/flows/errors/")[2][:12])
    return (
        path.replace("{here}", cast.own_url).replace("{report}", cast.report).replace("{cloud}", cast.cloud)
    )


def place_hold(cast: Cast) -> str:
    """Place a hold on all that is held of Bob, and return its id."""
    custody = open_custody(cast.home)
    bob, person = custody.directory.get("bob"), cast.ids["admin"]
    hold = custody.hold(bob, None, reason="case 12", by="ada", person=person)
    custody.close()
    return hold.id


def take(browser: Browser, cast: Cast, screens: Mapping[str, tuple[str, str]], folder: Path) -> None:
    """Take all pictures, in the light and, of some, in the dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (person, path) in screens.items():
        visitor = Visitor(browser, cast, person)
        page = visitor.go(place(path, cast))
        for kind, (width, height) in (("desktop", DESKTOP), ("phone", PHONE)):
            page.set_viewport_size({"width": width, "height": height})
            tall = min(TALLEST, max(height, page.evaluate("document.documentElement.scrollHeight")))
            clip = {"x": 0, "y": 0, "width": width, "height": tall}
            target = folder / f"{name}-{kind}.png"
            page.screenshot(path=target, full_page=True, clip=clip)  # type: ignore[arg-type]
            if name == "flows" and kind == "desktop":
                page.emulate_media(color_scheme="dark")
                page.screenshot(path=folder / "flows-dark.png", full_page=True)
                page.emulate_media(color_scheme="light")
        visitor.close()


def main() -> None:
    """Take pictures of a service of our own."""
    home = Path(tempfile.mkdtemp()) / "state"
    make_people(home)
    with serving(home, home.parent, "--upstream", "rehearsal") as service, open_browser() as browser:
        cast = make_cast(home, service)
        fill(cast)
        folder = Path(sys.argv[1])
        take(browser, cast, SCREENS, folder)
        take(browser, cast, {OF_A_HOLD: ("admin", f"{RELEASE}?hold={place_hold(cast)}")}, folder)


if __name__ == "__main__":
    main()
