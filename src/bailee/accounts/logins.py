"""Logins that wait for an account holder's word: OAuth 2.0 Device Authorization Grant (RFC 8628).

An agent asks and gets two codes: one to poll with, a secret of 256 random bits, and one that a person types.
Both are stored as digests. What the account holder approves is redeemed once, for a key of origin `login`.
Rows go a while after they expire; until then a late poll is told that, and not that it never was.
"""

import hmac
import re
import secrets
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.accounts.holders import digest_secret
from bailee.accounts.keys import Key, check_label, insert_key
from bailee.accounts.people import Account
from bailee.accounts.tables import KeyOrigin
from bailee.policy.problems import Problem

LIFETIME_MS = 10 * 60_000
# How long it is still told that a code has expired.
REMEMBERED_MS = 10 * 60_000
# So many may wait, of one address and of all: whoever has no key could fill the table otherwise.
MOST_OF_ADDRESS, MOST = 20, 500
# So many wrong codes may one account holder type within the lifetime of a code: of 2.6 * 10^10 codes 500 may
# wait, so that a guess succeeds once in 5 * 10^7 times (RFC 8628, 5.1, asks for such a limit).
MOST_GUESSES = 5
# RFC 8628, 6.1: letters without vowels, so that no words come about, and none that look like a digit.
LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
USER_CODE_LETTERS = 8

_DEVICE_CODE = re.compile(r"([0-9a-f]{16})_([0-9a-f]{64})")


class LoginState(StrEnum):
    """What has become of a login."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"
    REDEEMED = "redeemed"


class Login(msgspec.Struct, frozen=True):
    """A login by its facts; moments are milliseconds since 1970 UTC.

    Attributes:
        client: the OAuth client that asks.
        label: what the asking machine calls itself: nothing proves it.
        address: where the request came from, as the service saw it.
        account: the id of the account that it was approved for.
    """

    id: str
    client: str
    label: str
    address: str
    created_ms: int
    expires_ms: int
    state: LoginState
    account: str | None = None


class Codes(msgspec.Struct, frozen=True):
    """What the agent gets: told this once."""

    device_code: str
    user_code: str

    def __repr__(self) -> str:
        return "Codes(...)"


class TooManyGuesses(Problem):
    """So many wrong codes were typed that whoever types them has to wait.

    Args:
        seconds: for how long, until the first of the last `MOST_GUESSES` counts no more.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__(
            "too many wrong codes were typed", where="CODE", fix=f"try again in {seconds} seconds"
        )
        self.seconds = seconds


class TooManyLogins(Exception):
    """More logins wait than may; some expire within ten minutes."""


def begin_login(
    directory: Directory,
    *,
    client: str,
    label: str,
    address: str,
    random: Callable[[int], bytes] = secrets.token_bytes,
    draw: Callable[[str], str] = secrets.choice,
) -> Codes:
    """Take down that an agent asks to be let in.

    Args:
        draw: gives one letter of several.

    Raises:
        TooManyLogins: so many wait already.
        Problem: the label is not one line of up to 100 characters.
    """
    check_label(label, where="machine")
    table, now = tables.logins, directory.now_ms()
    id, secret = random(8).hex(), random(32).hex()
    user_code = "".join(draw(LETTERS) for _ in range(USER_CODE_LETTERS))
    forget_logins(directory)
    waits = sa.and_(table.c.expires_ms > now, table.c.decided_ms.is_(None))
    count = sa.select(sa.func.count()).select_from(table)
    with directory.engine.begin() as connection:
        if (
            connection.execute(count.where(waits)).scalar_one() >= MOST
            or connection.execute(count.where(waits, table.c.address == address)).scalar_one()
            >= MOST_OF_ADDRESS
        ):
            raise TooManyLogins
        connection.execute(
            sa.insert(table).values(
                id=id,
                digest=digest_secret(secret.encode()),
                user_digest=digest_secret(user_code.encode()),
                client=client,
                label=label,
                address=address,
                created_ms=now,
                expires_ms=now + LIFETIME_MS,
            )
        )
    half = USER_CODE_LETTERS // 2
    return Codes(f"{id}_{secret}", f"{user_code[:half]}-{user_code[half:]}")


def find_login(directory: Directory, device_code: str) -> Login | None:
    """Return the login that a device code polls for, expired or not; None if there is none.

    The digest is compared in constant time.
    """
    match = _DEVICE_CODE.fullmatch(device_code)
    if match is None:
        return None
    query = sa.select(tables.logins).where(tables.logins.c.id == match[1])
    with directory.engine.connect() as connection:
        row = connection.execute(query).first()
    digest = bytes(32) if row is None else row.digest
    is_it = hmac.compare_digest(digest_secret(match[2].encode()), digest)
    return _login(row) if row is not None and is_it else None


def redeem_login(
    directory: Directory, login: Login, *, random: Callable[[int], bytes] = secrets.token_bytes
) -> tuple[Key, str] | None:
    """Make the key that an approved login is for; None if it is not approved, expired or redeemed already."""
    table, now = tables.logins, directory.now_ms()
    redeemable = sa.and_(
        table.c.id == login.id,
        table.c.account.is_not(None),
        table.c.redeemed_ms.is_(None),
        table.c.expires_ms > now,
    )
    redeem = sa.update(table).where(redeemable).values(redeemed_ms=now)
    accounts = tables.accounts
    with directory.engine.begin() as connection:
        # Taken and made in one transaction: of two that redeem at once, one gets a key.
        row = connection.execute(redeem.returning(table.c.account, table.c.decided_by)).first()
        if row is None:
            return None
        name = connection.execute(sa.select(accounts.c.name).where(accounts.c.id == row.account)).scalar_one()
        return insert_key(
            connection,
            directory,
            row.account,
            name,
            label=f"login {login.label}".strip()[:100],
            origin=KeyOrigin.LOGIN,
            made_by=row.decided_by,
            created_ms=now,
            random=random,
        )


def list_logins(directory: Directory) -> list[Login]:
    """Return the logins that wait or were just decided, the latest first; their codes are with who asked.

    Others who saw a code could approve it for an account of theirs, and what the agent sends from then on
    would be theirs to read.
    """
    table = tables.logins
    query = sa.select(table).where(table.c.expires_ms > directory.now_ms())
    with directory.engine.connect() as connection:
        rows = connection.execute(query.order_by(table.c.created_ms.desc(), table.c.id)).all()
    return [_login(row) for row in rows]


def find_waiting(directory: Directory, user_code: str, *, by: str = "") -> Login:
    """Return the login that a person types the code of.

    Args:
        by: the id of the account whose holder types it: their wrong codes are counted; empty for nobody's,
            which serves to deny.

    Raises:
        Problem: no login waits for that code; `TooManyGuesses`, too many wrong ones were typed.
    """
    table, guesses, now = tables.logins, tables.login_guesses, directory.now_ms()
    written = normalize_code(user_code)
    latest = (
        sa.select(guesses.c.at_ms)
        .where(guesses.c.account == by, guesses.c.at_ms > now - LIFETIME_MS)
        .order_by(guesses.c.at_ms.desc())
        .limit(MOST_GUESSES)
    )
    query = sa.select(table).where(
        table.c.user_digest == digest_secret(written.encode()), table.c.expires_ms > now
    )
    with directory.engine.begin() as connection:
        made = connection.execute(latest).scalars().all() if by else ()
        if len(made) >= MOST_GUESSES:
            raise TooManyGuesses(-(-(made[-1] + LIFETIME_MS - now) // 1000))
        row = connection.execute(query.where(table.c.decided_ms.is_(None))).first()
        if row is None and by:
            connection.execute(sa.insert(guesses).values(account=by, at_ms=now))
    if row is None:
        raise Problem(
            "no login waits for this code",
            where="CODE",
            fix="type it as the agent shows it; it holds for ten minutes, then: bailee login",
        )
    return _login(row)


def approve_login(directory: Directory, login: Login, holder: Account, *, by: str) -> None:
    """Let an agent log in to an account; `choices.require_holder` has the account holder prove it first.

    Args:
        by: the user of this machine who approves it.

    Raises:
        Problem: it has expired or was decided meanwhile.
    """
    _decide(directory, login, account=holder.id, by=by)


def deny_login(directory: Directory, login: Login, *, by: str) -> None:
    """Refuse a login: whoever has its code may.

    Raises:
        Problem: it has expired or was decided meanwhile.
    """
    _decide(directory, login, account=None, by=by)


def forget_logins(directory: Directory) -> int:
    """Remove what expired a while ago, and wrong codes that count no more; return how many rows went."""
    logins, guesses = tables.logins, tables.login_guesses
    now = directory.now_ms()
    old = (
        (logins, logins.c.expires_ms <= now - REMEMBERED_MS),
        (guesses, guesses.c.at_ms <= now - LIFETIME_MS),
    )
    with directory.engine.connect() as connection:
        # Looked for first: a service reads its keys anew after every commit.
        found = [
            (table, which)
            for table, which in old
            if connection.execute(sa.select(sa.literal(1)).select_from(table).where(which)).first()
        ]
    if not found:
        return 0
    with directory.engine.begin() as connection:
        return sum(connection.execute(sa.delete(table).where(which)).rowcount for table, which in found)


def normalize_code(user_code: str) -> str:
    """Return a typed code as it was made: in capitals, without what groups it (RFC 8628, 6.1)."""
    return "".join(letter for letter in user_code.upper() if letter.isalnum())


def _decide(directory: Directory, login: Login, *, account: str | None, by: str) -> None:
    table, now = tables.logins, directory.now_ms()
    waits = sa.and_(table.c.id == login.id, table.c.decided_ms.is_(None), table.c.expires_ms > now)
    decide = sa.update(table).where(waits).values(account=account, decided_ms=now, decided_by=by)
    with directory.engine.begin() as connection:
        if not connection.execute(decide).rowcount:
            raise Problem(
                "this login has expired or was decided meanwhile",
                where="CODE",
                fix="start anew: bailee login",
            )


def _login(row: sa.Row[Any]) -> Login:
    state = LoginState.WAITING
    if row.redeemed_ms is not None:
        state = LoginState.REDEEMED
    elif row.decided_ms is not None:
        state = LoginState.DENIED if row.account is None else LoginState.APPROVED
    return Login(
        row.id, row.client, row.label, row.address, row.created_ms, row.expires_ms, state, row.account
    )
