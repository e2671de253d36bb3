"""The secrets store: what sessions work with and never see.

A secret belongs to an account or to its organization, for one repository or for all. It is sealed under the
home's key, bound to its place, and comes out for the Git host of its repository, as a placeholder that the
security proxy replaces for the hosts it is bound to, or, only where its owner says so, as a variable.
"""

import re
import secrets
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.accounts.directory import Directory
from bailee.accounts.holders import Operator
from bailee.ledger.entries import SecretChanged
from bailee.ledger.outbox import put
from bailee.policy.problems import Problem
from bailee.sealing.wrapping import KeyWrapper

# Those that open a repository at its host; they go into no session, not even as a placeholder.
GIT_CREDENTIAL, GITHUB_APP = "GIT_CREDENTIAL", "GITHUB_APP"
KEPT_OUTSIDE = frozenset({GIT_CREDENTIAL, GITHUB_APP})
LONGEST = 16_000  # characters
SHORTEST_BOUND = 16  # as the security proxy wants it: see flows/web/placeholders.py
_ORGANIZATION = "organization:"
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,99}")


class StoredSecret(msgspec.Struct, frozen=True):
    """What is known of a secret, without its value.

    Attributes:
        owner: an account's id, or `organization:` and its name.
        repository: host and path, behind `http://` where that is its scheme; empty for every repository.
        hosts: those that the security proxy puts it in for.
        is_exposed: whether sessions get the value itself.
        changed_ms: milliseconds since 1970 UTC.
    """

    owner: str
    repository: str
    name: str
    hosts: tuple[str, ...]
    is_exposed: bool
    changed_ms: int
    changed_by: str


def owner_of_organization(name: str) -> str:
    """Return what an organization's secrets are kept under."""
    return f"{_ORGANIZATION}{name}"


def person_of(owner: str) -> str:
    """Return what `ledger.pseudonyms` knows an owner by: an account's id, or an organization's name."""
    return owner.removeprefix(_ORGANIZATION)


def keep_secret(
    directory: Directory,
    wrapper: KeyWrapper,
    value: str,
    *,
    owner: str,
    name: str,
    repository: str = "",
    hosts: Sequence[str] = (),
    is_exposed: bool = False,
    by: Operator,
) -> None:
    """Keep a secret, in the place of the one of that name before.

    Raises:
        Problem: the name is none, or the value cannot be meant.
    """
    if not _NAME.fullmatch(name):
        raise Problem(
            f"{name[:100]!r} is no name of a secret", where="NAME", fix="write it as a variable: MY_TOKEN"
        )
    if not value or len(value) > LONGEST or not all(letter.isprintable() for letter in value):
        what = f"a secret is one line of 1 to {LONGEST} printable characters"
        raise Problem(what, where=name, fix="give it on standard input, without line breaks")
    if hosts and (len(value) < SHORTEST_BOUND or not value.isascii()):
        what = f"a secret that is bound to hosts has at least {SHORTEST_BOUND} ASCII characters"
        fix = "have a longer one made: the placeholder of a short one could be met by chance"
        raise Problem(what, where=name, fix=fix)
    if name in KEPT_OUTSIDE and (hosts or is_exposed):
        raise Problem(
            "a Git credential goes to the repository's host alone", where=name, fix="leave the rest out"
        )
    if name in KEPT_OUTSIDE and not repository:
        raise Problem(
            "a Git credential is for one repository",
            where=name,
            fix=f"say which: bailee secrets set {name} --repo URL",
        )
    sealed = wrapper.wrap(value.encode(), _bind(owner, repository, name))
    row = {
        "owner": owner,
        "repository": repository,
        "name": name,
        "sealed": sealed,
        "hosts": " ".join(hosts),
        "exposed": is_exposed,
        "changed_ms": directory.now_ms(),
        "changed_by": by.name,
    }
    with directory.engine.begin() as connection:
        connection.execute(_of(sa.delete(tables.secrets), owner, repository, name))
        connection.execute(sa.insert(tables.secrets).values(**row))
        _tell_change(directory, connection, owner, name, "kept", is_exposed=is_exposed, by=by)


def remove_secret(directory: Directory, *, owner: str, name: str, repository: str = "", by: Operator) -> None:
    """Remove a secret.

    Raises:
        Problem: there is none.
    """
    with directory.engine.begin() as connection:
        gone = connection.execute(_of(sa.delete(tables.secrets), owner, repository, name)).rowcount
        if gone:
            _tell_change(directory, connection, owner, name, "removed", is_exposed=False, by=by)
    if not gone:
        raise Problem(
            f"there is no secret {name}", where=repository or "NAME", fix="see: bailee secrets list"
        )


def list_secrets(directory: Directory, owners: Sequence[str] | None = None) -> list[StoredSecret]:
    """Return what is known of secrets, by owner, repository and name."""
    table = tables.secrets
    query = sa.select(table).order_by(table.c.owner, table.c.repository, table.c.name)
    if owners is not None:
        query = query.where(table.c.owner.in_(owners))
    with directory.engine.connect() as connection:
        return [_tell(row) for row in connection.execute(query)]


def open_secrets(
    directory: Directory, wrapper: KeyWrapper, owners: Sequence[str], repository: str
) -> dict[str, tuple[StoredSecret, str]]:
    """Return the secrets that count for a repository, with their values, by name.

    Args:
        owners: the nearest first; of one name that of the nearest counts, and of one owner that of the
            repository before that of all. A Git credential for all, as earlier versions kept, does not count.

    Raises:
        Problem: one was altered, or the home's key is another.
    """
    table = tables.secrets
    query = sa.select(table).where(table.c.owner.in_(owners), table.c.repository.in_(["", repository]))
    with directory.engine.connect() as connection:
        rows = list(connection.execute(query))
    rows = [row for row in rows if row.repository or row.name not in KEPT_OUTSIDE]
    rows.sort(key=lambda row: (owners.index(row.owner), not row.repository), reverse=True)
    found: dict[str, tuple[StoredSecret, str]] = {}
    for row in rows:
        try:
            value = wrapper.unwrap(row.sealed, _bind(row.owner, row.repository, row.name)).decode()
        except Problem:
            raise Problem(
                f"the secret {row.name} does not open under this home's key",
                where=row.repository or row.owner,
                fix="set it again: bailee secrets set",
            ) from None
        found[row.name] = (_tell(row), value)
    return found


def _tell_change(
    directory: Directory,
    connection: sa.Connection,
    owner: str,
    name: str,
    change: str,
    *,
    is_exposed: bool,
    by: Operator,
) -> None:
    person = person_of(owner)
    entry = SecretChanged(
        id=secrets.token_hex(16),
        at_ms=directory.now_ms(),
        subject=directory.name(person),
        secret=directory.name(person, f"secret {name}"),
        change=change,
        exposed=is_exposed,
        by=directory.name(by.signed_in or by.person),
    )
    put(connection, tables.outbox, [entry])


def _tell(row: sa.Row[tuple[object, ...]]) -> StoredSecret:
    hosts = tuple(str(row.hosts).split())
    return StoredSecret(
        row.owner, row.repository, row.name, hosts, bool(row.exposed), row.changed_ms, row.changed_by
    )


def _of(statement: sa.Delete, owner: str, repository: str, name: str) -> sa.Delete:
    table = tables.secrets
    return statement.where(table.c.owner == owner, table.c.repository == repository, table.c.name == name)


def _bind(owner: str, repository: str, name: str) -> bytes:
    return b"bailee secret 1" + msgspec.msgpack.encode((owner, repository, name))
