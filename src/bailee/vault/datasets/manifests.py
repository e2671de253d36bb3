"""The manifest of a dataset: what is in it and what is not, on which consents it rests, and its hashes."""

from pathlib import Path
from typing import TypeVar

import msgspec

from bailee.policy.problems import Problem
from bailee.vault.copies.exports import Withdrawal
from bailee.vault.copies.folders import File

MANIFEST = "manifest.json"
BUILDING = "building.json"
VERSION = 1

_Read = TypeVar("_Read")


class Basis(msgspec.Struct, frozen=True):
    """The consent that an account's items rest on; `since` is a moment, UTC."""

    account: str
    consent: str
    since: str


class Counts(msgspec.Struct):
    """Exchanges that were looked at: those in the dataset, and by rule those that are not."""

    looked_at: int = 0
    items: int = 0
    excluded: dict[str, int] = {}

    def exclude(self, why: str, count: int = 1) -> None:
        """Count some that are left out."""
        self.looked_at += count
        self.excluded[why] = self.excluded.get(why, 0) + count


class Building(msgspec.Struct):
    """A dataset that is being built: `building.json`, and gone when it is done.

    Attributes:
        build: 32 hexadecimal digits, drawn; pseudonyms hold within one build.
        checkpoint: the ledger's signed note when it was begun.
    """

    build: str
    reason: str
    begun_ms: int
    checkpoint: str


class Part(msgspec.Struct):
    """What one part came to, beside its file until the dataset is done.

    Attributes:
        after, upto: account and session that it begins after and ends with; None for the first.
        file: None where it has no items.
    """

    after: tuple[str, str] | None
    upto: tuple[str, str]
    sessions: int
    counts: Counts
    masked: dict[str, int]
    bases: list[Basis]
    file: File | None


class Manifest(msgspec.Struct, frozen=True):
    """What `manifest.json` says.

    Attributes:
        version: of this format.
        build: drawn for this dataset.
        begun_at, built_at: moments, UTC.
        purpose, reason: what it is for, and why it was built.
        checkpoint: the ledger's signed note when the build began: what was destroyed since stands after it.
        masked: secrets masked, by kind.
        consents: on which consent the items of each account rest; accounts by pseudonyms of this build.
        withdrawn: what was taken out since it was built; `counts` tells of the items that are left.
    """

    version: int
    build: str
    begun_at: str
    built_at: str
    purpose: str
    reason: str
    checkpoint: str
    counts: Counts
    masked: dict[str, int]
    consents: list[Basis]
    columns: list[str]
    files: list[File]
    withdrawn: list[Withdrawal] = []


def encode(value: object) -> bytes:
    """Encode as JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def read(path: Path, kind: type[_Read]) -> _Read | None:
    """Read one of these files; None if it is not there.

    Raises:
        Problem: it is not what it should be.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise Problem(f"this is not as it was written: {error}", where=str(path)) from None
