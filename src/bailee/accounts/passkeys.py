"""Passkeys of account holders, for the console: keys that an authenticator keeps (WebAuthn, level 3).

What is signed is a challenge that is good once, for some minutes, and for the browser that asked for it. An
origin is compared with the service's own, and never with what a request says that it was sent to: whoever
relays a signature chooses that. A passkey is good for the host that it was added at.
"""

import hashlib
import hmac
import json
import secrets
from typing import Any
from urllib.parse import urlsplit

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.choices import choose_origin
from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator
from bailee.accounts.people import Account
from bailee.accounts.sign_ins import end_sign_ins, refuse_sign_in
from bailee.accounts.tables import KeyOrigin
from bailee.ledger.outbox import put
from bailee.ledger.sign_in_entries import PasskeyChanged
from bailee.policy.problems import Problem

CHALLENGE_MS = 5 * 60_000
# Of one account.
MOST = 20
LONGEST_NAME = 60
# What a browser sends of a passkey, in characters: attestations are not asked for.
LONGEST_ANSWER = 20_000
_WHERE = "passkey"


class Passkey(msgspec.Struct, frozen=True):
    """A passkey. Times are milliseconds since 1970 UTC.

    Attributes:
        account: the id of the account whose holder it proves.
        host: of the service when it was added.
        signatures: how many the authenticator has made, as it says; 0 where it does not count.
        used_ms: when somebody last signed in with it; None for never.
    """

    id: str
    account: str
    name: str
    host: str
    public_key: bytes
    signatures: int
    created_ms: int
    used_ms: int | None


def begin_adding(directory: Directory, holder: Account, *, origin: str, browser: str) -> bytes:
    """Return what a browser needs to make a passkey: JSON (WebAuthn, `PublicKeyCredentialCreationOptions`).

    Args:
        origin: the service's own, such as `https://bailee.example.com`.
        browser: what forms of the browser that asks are bound to.

    Raises:
        Problem: the account has as many as there may be.
    """
    from webauthn import generate_registration_options, options_to_json
    from webauthn.helpers import base64url_to_bytes
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        PublicKeyCredentialDescriptor,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    known = list_passkeys(directory, holder.id)
    if len(known) >= MOST:
        raise Problem(f"an account has at most {MOST} passkeys", where=_WHERE, fix="remove one first")
    options = generate_registration_options(
        rp_id=_host(origin),
        rp_name="Bailee",
        user_name=holder.name,
        user_id=holder.id.encode(),
        challenge=_make_challenge(directory, holder.id, browser),
        timeout=CHALLENGE_MS,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED,
            require_resident_key=True,
            user_verification=UserVerificationRequirement.REQUIRED,
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=base64url_to_bytes(one.id)) for one in known],
    )
    return options_to_json(options).encode()


def add_passkey(
    directory: Directory,
    account: str,
    operator: Operator,
    *,
    name: str,
    answer: str,
    origin: str,
    browser: str,
) -> None:
    """Keep the passkey that a browser made.

    Args:
        account: the account's name.
        name: what its holder calls it.
        answer: JSON as the browser sent it (WebAuthn, `RegistrationResponseJSON`).
        origin, browser: as for `begin_adding`.

    Raises:
        Problem: who asks does not prove to be the holder, it has no name, the challenge is not this browser's
            or was used, or the answer is not what was asked for.
    """
    from webauthn import verify_registration_response
    from webauthn.helpers import bytes_to_base64url
    from webauthn.helpers.exceptions import WebAuthnException

    holder = directory.get(account)
    if choose_origin(directory, account, operator, for_holder=False) is not KeyOrigin.HOLDER:
        directory.tell_refusal(_WHERE, True, operator.person, of=holder.id)
        raise Problem("the account holder alone adds a passkey", where=_WHERE, fix="sign in first")
    called = " ".join(name.split())
    if not 0 < len(called) <= LONGEST_NAME or not called.isprintable():
        fix = f"use up to {LONGEST_NAME} characters, such as: phone"
        raise Problem("a passkey has a name that you know it by", where=_WHERE, fix=fix)
    read = _read_answer(answer)
    challenge = _use_challenge(directory, read, holder.id, browser)
    try:
        made = verify_registration_response(
            credential=read,
            expected_challenge=challenge,
            expected_rp_id=_host(origin),
            expected_origin=origin,
            require_user_verification=True,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError):
        raise Problem("this is not the passkey that was asked for", where=_WHERE, fix="try again") from None
    now = directory.now_ms()
    row = {
        "id": bytes_to_base64url(made.credential_id),
        "account": holder.id,
        "name": called,
        "host": _host(origin),
        "public_key": made.credential_public_key,
        "signatures": made.sign_count,
        "created_ms": now,
        "used_ms": None,
    }
    try:
        with directory.engine.begin() as connection:
            connection.execute(sa.insert(tables.passkeys), row)
            put(connection, tables.outbox, [_tell(directory, holder.id, "added", holder.id)])
    except sa.exc.IntegrityError:
        raise Problem("this passkey is known already", where=_WHERE) from None


def begin_signing_in(directory: Directory, *, origin: str, browser: str) -> bytes:
    """Return what a browser needs to sign with any passkey of this service: JSON (WebAuthn,
    `PublicKeyCredentialRequestOptions`).

    Args:
        origin, browser: as for `begin_adding`.
    """
    from webauthn import generate_authentication_options, options_to_json
    from webauthn.helpers.structs import UserVerificationRequirement

    options = generate_authentication_options(
        rp_id=_host(origin),
        challenge=_make_challenge(directory, None, browser),
        timeout=CHALLENGE_MS,
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return options_to_json(options).encode()


def check_passkey(directory: Directory, answer: str, *, origin: str, browser: str) -> Account | None:
    """Return the account whose passkey signed, or None; who used a known one wrongly is ledgered.

    Args:
        answer: JSON as the browser sent it (WebAuthn, `AuthenticationResponseJSON`).
        origin, browser: as for `begin_adding`.

    Raises:
        Problem: the challenge is not this browser's, was used or is too old, or the answer is none.
    """
    from webauthn import verify_authentication_response
    from webauthn.helpers import base64url_to_bytes
    from webauthn.helpers.exceptions import WebAuthnException

    read = _read_answer(answer)
    challenge = _use_challenge(directory, read, None, browser)
    known = _find(directory, str(read.get("id", "")))
    account = directory.find(known.account) if known is not None else None
    if known is None or account is None:
        return None
    try:
        signed = verify_authentication_response(
            credential=read,
            expected_challenge=challenge,
            expected_rp_id=known.host,
            expected_origin=origin,
            credential_public_key=known.public_key,
            credential_current_sign_count=known.signatures,
            require_user_verification=True,
        )
        handle = base64url_to_bytes(str(read["response"]["userHandle"]))
        is_it = hmac.compare_digest(handle, account.id.encode())
    except (WebAuthnException, ValueError, KeyError, TypeError):
        is_it = False
    if is_it:
        table = tables.passkeys
        used = sa.update(table).where(table.c.id == known.id, table.c.signatures == known.signatures)
        values = {"signatures": signed.new_sign_count, "used_ms": directory.now_ms()}
        with directory.engine.begin() as connection:
            is_it = bool(connection.execute(used.values(values)).rowcount)
    if not is_it:
        refuse_sign_in(directory, account)
        return None
    return account


def list_passkeys(directory: Directory, account: str) -> list[Passkey]:
    """Return the passkeys of an account, by its id, the oldest first."""
    table = tables.passkeys
    query = sa.select(table).where(table.c.account == account).order_by(table.c.created_ms, table.c.id)
    with directory.engine.connect() as connection:
        return [Passkey(**row._mapping) for row in connection.execute(query)]


def remove_passkey(directory: Directory, holder: Account, id: str, *, but: str = "") -> None:
    """Remove one of a holder's own passkeys; the account's other sign-ins end.

    Args:
        but: the id of the sign-in that goes on.

    Raises:
        Problem: they have none of that id.
    """
    table = tables.passkeys
    with directory.engine.begin() as connection:
        gone = sa.delete(table).where(table.c.id == id, table.c.account == holder.id)
        if not connection.execute(gone).rowcount:
            raise Problem("there is no such passkey", where=_WHERE, fix="it is removed already")
        put(connection, tables.outbox, [_tell(directory, holder.id, "removed", holder.id)])
    end_sign_ins(directory, holder.id, but=but)


def take_passkeys(directory: Directory, account: str, operator: Operator) -> int:
    """Take all passkeys of an account away, by its name: whoever runs the program may; sign-ins end.

    Returns:
        How many those were.

    Raises:
        Problem: the account has none, or there is no such account.
    """
    holder, table = directory.get(account), tables.passkeys
    with directory.engine.begin() as connection:
        count = connection.execute(sa.delete(table).where(table.c.account == holder.id)).rowcount
        if not count:
            raise Problem(f"{account!r} has no passkey", where=f"--account {account}")
        put(connection, tables.outbox, [_tell(directory, holder.id, "taken", operator.person)])
    end_sign_ins(directory, holder.id)
    return count


def _host(origin: str) -> str:
    return urlsplit(origin).hostname or ""


def _read_answer(answer: str) -> dict[str, Any]:
    try:
        read = json.loads(answer) if len(answer) <= LONGEST_ANSWER else None
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict) or not isinstance(read.get("response"), dict):
        raise Problem("this is no answer of a passkey", where=_WHERE, fix="load the page anew, and try again")
    return read


def _make_challenge(directory: Directory, account: str | None, browser: str) -> bytes:
    challenge, now, table = secrets.token_bytes(32), directory.now_ms(), tables.passkey_challenges
    row = {
        "digest": hashlib.sha256(challenge).hexdigest(),
        "browser": hashlib.sha256(browser.encode()).hexdigest(),
        "account": account,
        "expires_ms": now + CHALLENGE_MS,
    }
    with directory.engine.begin() as connection:
        connection.execute(sa.delete(table).where(table.c.expires_ms <= now))
        connection.execute(sa.insert(table), row)
    return challenge


def _use_challenge(directory: Directory, answer: dict[str, Any], account: str | None, browser: str) -> bytes:
    """Return the challenge that an answer says it signed, which is good no more.

    Raises:
        Problem: this browser was not given it for that, it was used, or it is too old.
    """
    from webauthn.helpers import base64url_to_bytes, parse_client_data_json
    from webauthn.helpers.exceptions import WebAuthnException

    table = tables.passkey_challenges
    challenge = b""
    try:
        text = base64url_to_bytes(str(answer["response"]["clientDataJSON"]))
        challenge = parse_client_data_json(text).challenge
    except (WebAuthnException, ValueError, KeyError, TypeError):
        pass
    gone = sa.delete(table).where(
        table.c.digest == hashlib.sha256(challenge).hexdigest(),
        table.c.browser == hashlib.sha256(browser.encode()).hexdigest(),
        table.c.account.is_(None) if account is None else table.c.account == account,
        table.c.expires_ms > directory.now_ms(),
    )
    with directory.engine.begin() as connection:
        if not connection.execute(gone).rowcount:
            raise Problem(
                "what was signed is not for this browser, was used already, or is too old",
                where=_WHERE,
                fix="load the page anew, and try again",
            )
    return challenge


def _find(directory: Directory, id: str) -> Passkey | None:
    table = tables.passkeys
    with directory.engine.connect() as connection:
        row = connection.execute(sa.select(table).where(table.c.id == id)).first()
    return None if row is None else Passkey(**row._mapping)


def _tell(directory: Directory, account: str, change: str, by: str) -> PasskeyChanged:
    return PasskeyChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(account),
        change=change,
        by=directory.name(by),
    )
