"""What the ledger calls a person: a keyed hash whose key is destroyed with the account.

The keys rest beside the keys of segments, in a file with the same short life of its backups: an old copy of
the accounts or of the vault then says nothing about who an entry of the ledger means.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Set
from pathlib import Path

import sqlalchemy as sa

from bailee.database.engines import open_database, truncate_log
from bailee.database.stores import Store

# What begins the word for who does something with a home; no account's id and no organization's name does.
OPERATOR = "operator "
metadata = sa.MetaData()
PSEUDONYMS = Store(
    "pseudonyms",
    metadata,
    Path(__file__).parent / "revisions",
    "0001",
    page_bytes=512,
    file="keystore/pseudonyms.db",
    vacuumed=("salts",),
)
salts = sa.Table(
    "salts",
    metadata,
    sa.Column("person", sa.Text, primary_key=True),
    sa.Column("salt", sa.LargeBinary(32), nullable=False),
)


class Pseudonyms:
    """Gives each person a name that the ledger may keep."""

    def __init__(self, engine: sa.Engine, random: Callable[[int], bytes]) -> None:
        self._engine = engine
        self._random = random

    def name(self, person: str, of: str = "") -> str:
        """Return the pseudonym of a person, or of something of theirs: 64 hexadecimal digits.

        Args:
            person: an account's id, or another word that stands for a person.
            of: what of theirs is meant, such as a session's id; empty for the person.
        """
        return name_with(self.salt(person), of)

    def forget(self, person: str) -> None:
        """Destroy what makes the pseudonyms of a person: nobody can tell any more who was meant."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(salts).where(salts.c.person == person))
        truncate_log(self._engine)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def all(self) -> dict[str, bytes]:
        """Return the salt of each person there is one of."""
        with self._engine.connect() as connection:
            return {row.person: row.salt for row in connection.execute(sa.select(salts))}

    def salt(self, person: str) -> bytes:
        """Return a person's salt, drawn at first use."""
        query = sa.select(salts.c.salt).where(salts.c.person == person)
        with self._engine.begin() as connection:
            # Whoever comes second takes the first one's: two salts would be two persons.
            if (found := connection.execute(query).scalar_one_or_none()) is None:
                connection.execute(
                    sa.text(
                        "INSERT INTO salts (person, salt) VALUES (:person, :salt) ON CONFLICT DO NOTHING"
                    ),
                    {"person": person, "salt": self._random(32)},
                )
                found = connection.execute(query).scalar_one()
        salt: bytes = found
        return salt


def name_with(salt: bytes, of: str = "") -> str:
    """Return the pseudonym that a salt makes; see `Pseudonyms.name`."""
    return hmac.new(salt, b"bailee pseudonym 1" + of.encode(), hashlib.sha256).hexdigest()


def is_account(person: str) -> bool:
    """Tell whether a word that stands for a person is an account's id: 32 hexadecimal digits."""
    return len(person) == 32 and all(digit in "0123456789abcdef" for digit in person)


def find_gone(known: Collection[str], there: Collection[str | None], erased: Set[str]) -> set[str]:
    """Return who was erased among those that have a salt: accounts, and organizations without a member.

    Where an account is only missing, no organization's salt is to go: both may come back from a backup, which
    opens with them.

    Args:
        known: who has a salt; read before `there` is.
        there: ids of the accounts there are, and names of their organizations.
        erased: ids of accounts that were erased.
    """
    gone = {person for person in known if person not in there and not person.startswith(OPERATOR)}
    has_missing = any(is_account(person) and person not in erased for person in gone)
    return gone & erased if has_missing else gone


def open_pseudonyms(directory: Path, random: Callable[[int], bytes]) -> Pseudonyms:
    """Open, or make, the pseudonyms in a keystore's directory.

    Raises:
        Problem: see `database.engines.open_database`.
    """
    return Pseudonyms(open_database(directory / "pseudonyms.db", PSEUDONYMS), random)
