"""What a request has to be before the console listens to it: sent to one of its names, a form of its own."""

import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request

from bailee.bodies import TooLong, TooSlow, read_body
from bailee.codings import Undecodable
from bailee.console.paths import is_own_name
from bailee.policy.problems import Problem

# A receipt that is pasted to be verified is the longest.
LARGEST_FORM = 4_000_000
# Fields that hold a secret, on whatever page: they are typed again.
_SECRETS = frozenset(
    {
        "again",
        "code",
        "credential",
        "link",
        "password",
        "present",
        "proof",
        "secret",
        "token",
        "value",
    }
)
_FORM_TYPE = "application/x-www-form-urlencoded"


def make_form_token(bound_to: str) -> str:
    """Return what a form carries: only who holds the cookie that it is bound to has a page with it."""
    return hmac.new(bound_to.encode(), b"bailee form 1", hashlib.sha256).hexdigest()


def is_from_here(request: Request) -> bool:
    """Tell whether a form comes from a page of ours, by what the browser says of it."""
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin")
    here = f"{request.url.scheme}://{request.url.netloc}"
    return site in ("same-origin", "none") and origin in (None, here)


def has_token(form: Mapping[str, str], token: str) -> bool:
    """Tell whether a form comes from a page that was drawn for this browser's cookie."""
    given = form.get("form_token", "")
    return bool(token) and hmac.compare_digest(given.encode(), make_form_token(token).encode())


def tell_typed(form: Mapping[str, str]) -> dict[str, str]:
    """Return what was typed into a form, without secrets."""
    return {name: value for name, value in form.items() if name not in ("form_token", *_SECRETS)}


def is_called(request: Request, console_url: str) -> bool:
    """Tell whether a request was sent to a name that this service has.

    In clear it listens on this machine alone. Whoever has another name lead there (DNS rebinding) could have
    a browser try passwords, and read what nobody signed in may. With TLS the certificate sees to it.
    """
    host = request.url.hostname or ""
    return request.url.scheme != "http" or is_own_name(host) or host == urlsplit(console_url).hostname


def refuse_nul(*values: str) -> None:
    """Raise Problem for a character that PostgreSQL takes in no text, and no page has a use for."""
    if any("\0" in value for value in values):
        raise Problem("there is a NUL character in what was sent", where="the request", fix="leave it out")


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form; of several values the last.

    Raises:
        Problem: it is none, longer than LARGEST_FORM bytes, too slow, or not UTF-8.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM_TYPE:
        raise Problem("this is no form", where="the request", fix=f"send {_FORM_TYPE}")
    try:
        body = await read_body(request.stream(), "", most=LARGEST_FORM, most_decoded=LARGEST_FORM)
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=200))
    except TooLong:
        raise Problem(f"a form has at most {LARGEST_FORM:,} bytes", where="the form") from None
    except (TooSlow, ClientDisconnect):
        raise Problem("the form did not come in time", where="the form", fix="send it again") from None
    except (ValueError, Undecodable):
        raise Problem("the form cannot be read", where="the form", fix="load the page anew") from None
