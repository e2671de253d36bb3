"""What a form that was not taken may be shown with."""

import re
from pathlib import Path

import bailee
from bailee.console.requests import tell_typed

PACKAGE = Path(bailee.__file__).parent
TYPED_SECRETS = re.compile(r'ui\.field\("([^"]+)"[^}]*kind="password"')


def test_what_is_typed_unseen_is_not_shown() -> None:
    """Whatever a page of ours takes as a password or a secret's value is left out of what comes back.

    Control: what is typed in sight is not.
    """
    pages = [path.read_text() for path in PACKAGE.rglob("templates/*.html")]
    names = {name for page in pages for name in TYPED_SECRETS.findall(page)} | {"value", "link", "form_token"}
    assert names >= {"password", "present", "again", "proof", "secret"}
    assert tell_typed(dict.fromkeys(names, "hunter2") | {"reason": "case 1"}) == {"reason": "case 1"}
