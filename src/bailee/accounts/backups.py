"""The accounts in a backup: each person's part sealed under a key made from the salt of its pseudonym.

The salt is destroyed with the account (`ledger.pseudonyms`), and with it the person's name, keys and consents
in every backup there is. So what opens here is who is there still.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec
import sqlalchemy as sa

from bailee.accounts import tables
from bailee.database.snapshots import insert_rows, reading
from bailee.ledger.pseudonyms import name_with
from bailee.policy.problems import Problem
from bailee.sealing.boxes import open_box, seal_box
from bailee.sealing.envelopes import SealBroken

_LENGTH_BYTES = 4
MAX_FRAME_BYTES = 1 << 30
Row = dict[str, Any]


class Person(msgspec.Struct, frozen=True):
    """An account or an organization with all that is known of it, as rows of the tables.

    Attributes:
        account, organization: its own row; the other one is None.
    """

    account: Row | None = None
    organization: Row | None = None
    keys: list[Row] = []
    consents: list[Row] = []
    accesses: list[Row] = []


class _Frame(msgspec.Struct, frozen=True, array_like=True):
    """A sealed person; `name` is the pseudonym it is found by."""

    name: str
    box: bytes


def write_people(
    engine: sa.Engine, salt: Callable[[str], bytes], file: BinaryIO, random: Callable[[int], bytes]
) -> list[str]:
    """Write everybody there is; return who that is: ids of accounts, names of organizations.

    Args:
        salt: gives a person's salt, and draws one for who has none.
    """
    written = []
    with reading(engine) as connection:
        for person, known in _read_people(connection):
            secret = salt(person)
            name = name_with(secret)
            box = seal_box(_key(secret), msgspec.msgpack.encode(known), name.encode(), random)
            frame = msgspec.msgpack.encode(_Frame(name, box))
            file.write(len(frame).to_bytes(_LENGTH_BYTES, "big") + frame)
            written.append(person)
    return written


def read_people(file: BinaryIO, salts: Mapping[str, bytes]) -> Iterator[Person | None]:
    """Give everybody whose salt is still there, and None for each who is not there any more.

    Args:
        salts: the salt of each person.

    Raises:
        Problem: the file is damaged.
    """
    by_name = {name_with(salt): salt for salt in salts.values()}
    while head := file.read(_LENGTH_BYTES):
        length = int.from_bytes(head, "big")
        data = file.read(length) if len(head) == _LENGTH_BYTES and length <= MAX_FRAME_BYTES else b""
        if not data or len(data) != length:
            raise Problem("the accounts of the backup end too early", where="accounts")
        try:
            frame = msgspec.msgpack.decode(data, type=_Frame)
            found = by_name.get(frame.name)
            if found is None:
                yield None
                continue
            text = open_box(_key(found), frame.box, frame.name.encode())
            yield msgspec.msgpack.decode(text, type=Person)
        except (msgspec.MsgspecError, SealBroken) as broken:
            raise Problem(f"the accounts of the backup do not open: {broken}", where="accounts") from None


def insert_people(connection: sa.Connection, people: Iterator[Person | None]) -> tuple[int, int]:
    """Put people into empty tables; return how many accounts came back and how many people did not.

    An organization of which no member is there any more stays away.
    """
    accounts: list[Person] = []
    organizations: list[Person] = []
    gone = 0
    for person in people:
        if person is None:
            gone += 1
        else:
            (accounts if person.account else organizations).append(person)
    members = {person.account["organization"] for person in accounts if person.account}
    kept = [one for one in organizations if one.organization and one.organization["name"] in members]
    insert_rows(connection, tables.organizations, [one.organization for one in kept if one.organization])
    insert_rows(connection, tables.accounts, [one.account for one in accounts if one.account])
    for one in (*kept, *accounts):
        insert_rows(connection, tables.keys, one.keys)
        insert_rows(connection, tables.consents, one.consents)
        insert_rows(connection, tables.accesses, one.accesses)
    return len(accounts), gone


def _read_people(connection: sa.Connection) -> Iterator[tuple[str, Person]]:
    organizations, accounts = tables.organizations, tables.accounts
    for row in connection.execute(sa.select(organizations).order_by(organizations.c.name)).all():
        consents = _rows(connection, tables.consents, tables.consents.c.subject == row.name)
        yield row.name, Person(organization=dict(row._mapping), consents=consents)
    for row in connection.execute(sa.select(accounts).order_by(accounts.c.id)).all():
        yield (
            row.id,
            Person(
                account=dict(row._mapping),
                keys=_rows(connection, tables.keys, tables.keys.c.account == row.id),
                consents=_rows(connection, tables.consents, tables.consents.c.subject == row.id),
                accesses=_rows(connection, tables.accesses, tables.accesses.c.account == row.id),
            ),
        )


def _rows(connection: sa.Connection, table: sa.Table, which: sa.ColumnElement[bool]) -> list[Row]:
    query = sa.select(table).where(which).order_by(*table.primary_key.columns)
    return [dict(row._mapping) for row in connection.execute(query)]


def _key(salt: bytes) -> bytes:
    return hmac.new(salt, b"bailee account backup 1", hashlib.sha256).digest()
