"""What the ledger says: facts and commitments, never content, and nobody's name.

A person is a pseudonym that means nothing once its salt is destroyed (`ledger.pseudonyms`). A segment is the
SHA-256 of its random id: whoever holds a copy of the vault can tell that it is meant, nobody else can. A
reason is a salted commitment: its text stays in the database of what it is about.
"""

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from bailee.ledger.entry import Entry
from bailee.ledger.sign_in_entries import (
    IdentityChanged,
    IdentityProviderChanged,
    PasskeyChanged,
    PasswordChanged,
    SignedIn,
    SignInRefused,
)


class DecisionMade(Entry, frozen=True, kw_only=True, tag="decision"):
    """Data is held under a decision for the first time; the digest is of its text in the vault."""

    digest: str


class ConsentChanged(Entry, frozen=True, kw_only=True, tag="consent"):
    """A consent was given or ended, or zero data retention switched."""

    subject: str
    consent: str
    given: bool
    by: str


class ConsentRefused(Entry, frozen=True, kw_only=True, tag="consent_refused", omit_defaults=True):
    """Somebody asked for a change that was not theirs to make, or that there is not.

    Attributes:
        consent: "training", "dpp", "zdr", "retention" for a limit, "key" for one that proves somebody,
            "admin" for another admin of an organization, or "login" for an agent that logs in.
        subject: whose account or organization; empty in entries of earlier programs.
    """

    consent: str
    given: bool
    by: str
    subject: str = ""


class TermsTightened(Entry, frozen=True, kw_only=True, tag="tightened", omit_defaults=True):
    """What an account holds of a flow came under stricter terms; `segments` counts those that changed.

    Attributes:
        flow: left out where it is model traffic, as in all entries of earlier programs.
    """

    subject: str
    retention: str
    trainable: bool
    segments: int
    flow: str = "messages"


class LimitChanged(Entry, frozen=True, kw_only=True, tag="limit", omit_defaults=True):
    """An account holder, or an organization's admin, wished records to be held no longer than this.

    Attributes:
        by: who said so; an operator may shorten it for them. Empty in entries of earlier programs.
    """

    subject: str
    retention: str
    by: str = ""


class KeyCreated(Entry, frozen=True, kw_only=True, tag="key_created"):
    """A key was made for an account; its name is a pseudonym of its account's.

    Attributes:
        origin: "holder" where the account holder made it, "handed_over" where another made it for them, so
            that it proves who they are; "other", "run" and "login" where it is for agents and proves nobody.
    """

    subject: str
    key: str
    origin: str
    by: str


class KeyRevoked(Entry, frozen=True, kw_only=True, tag="key_revoked", omit_defaults=True):
    """A key that an agent presents was revoked; its name is a pseudonym of its account's.

    Attributes:
        by: who revoked it; empty where its run ended, an agent logged out or its account was erased, and in
            entries of earlier programs.
    """

    subject: str
    key: str
    by: str = ""


class HoldPlaced(Entry, frozen=True, kw_only=True, tag="hold_placed"):
    """A legal hold; without a session it covers all that the account holds."""

    hold: str
    subject: str
    session: str | None
    by: str
    reason: str


class HoldReleased(Entry, frozen=True, kw_only=True, tag="hold_released"):
    """A legal hold ended; entries of earlier programs do not say whose it was."""

    hold: str
    subject: str = ""
    by: str
    reason: str


class KeysDestroyed(Entry, frozen=True, kw_only=True, tag="keys_destroyed"):
    """Keys of segments were destroyed: what they sealed opens in no copy any more.

    Attributes:
        why: "expired", "erased", or "restored" where a restore applied an earlier erasure again, or where the
            vault that it put back does not hold what they opened.
        segments: commitments to their ids, see `commit_segment`.
    """

    why: str
    segments: tuple[str, ...]


class Erased(Entry, frozen=True, kw_only=True, tag="erased", omit_defaults=True):
    """A person had a session, or with none named a whole account, erased.

    Attributes:
        copies: exports and datasets that held some of it; where there are any, a `CopiesReached` that tells
            what became of all of them follows, and belongs to its receipt. 0 in entries of earlier programs.
    """

    subject: str
    session: str | None
    by: str
    segments: int
    records: int
    exchanges: int
    stored_bytes: int
    copies: int = 0


class Swept(Entry, frozen=True, kw_only=True, tag="sweep"):
    """A sweep destroyed keys, or found some that a hold keeps; `as_of` is the UTC day it went by."""

    as_of: str
    keys_destroyed: int
    segments_held_back: int


class ContentRead(Entry, frozen=True, kw_only=True, tag="access"):
    """Somebody other than the account holder read content."""

    subject: str
    session: str | None
    reader: str
    purpose: str
    reason: str


class DatasetBuilt(Entry, frozen=True, kw_only=True, tag="dataset"):
    """A dataset was built; whoever changes it or its manifest afterwards shows, for the digest is another's.

    Attributes:
        digest: SHA-256 of its manifest, which holds those of its files.
    """

    digest: str
    items: int
    by: str


class BackedUp(Entry, frozen=True, kw_only=True, tag="backup"):
    """A backup was made.

    Attributes:
        backup: its id.
        keys_until_ms: until when the copy of the keys that was made with it may be used, and by when it is to
            be deleted; None where none was made.
    """

    backup: str
    by: str
    keys_until_ms: int | None


class KeyCopyDeleted(Entry, frozen=True, kw_only=True, tag="key_copy_deleted"):
    """Somebody confirmed that the copy of the keys made with a backup is deleted wherever it was."""

    backup: str
    by: str


class Restored(Entry, frozen=True, kw_only=True, tag="restored"):
    """A home was restored from a backup.

    Attributes:
        entries: how many entries the ledger had that were applied to it.
        dropped: segments of the backup that were not put back, by why: "erased", "expired", "no key".
        unknown: a commitment to the reason for which it was accepted that nothing later than the backup's own
            ledger was there; None where it was there.
    """

    backup: str
    by: str
    entries: int
    segments: int
    dropped: dict[str, int]
    unknown: str | None


class CopyWithdrawn(Entry, frozen=True, kw_only=True, tag="copy_withdrawn"):
    """What was to go is taken out of a copy that lies outside the vault: an export, or a dataset.

    Attributes:
        copy: 32 hexadecimal digits, drawn.
        what: "export" or "dataset".
        digest: SHA-256 of its index file as it is then, which holds those of its files; empty where all of it
            went.
        taken: lines of an export, items of a dataset.
    """

    copy: str
    what: str
    digest: str
    taken: int


class CopyForgotten(Entry, frozen=True, kw_only=True, tag="copy_forgotten"):
    """Somebody had a copy forgotten: what was still to be taken out of it, Bailee will not take out."""

    copy: str
    what: str
    by: str
    reason: str


class CopiesReached(Entry, frozen=True, kw_only=True, tag="copies"):
    """How far an erasure came with the copies that Bailee wrote outside the vault.

    Attributes:
        erasure: the id of its entry.
        reached: copies that hold nothing of it any more.
        pending: copies that still do; each that is reached later has an entry of its own.
        holders: copies that the account holder made, which are left as they are.
    """

    erasure: str
    reached: int
    pending: int
    holders: int


class FlowsReceipted(Entry, frozen=True, kw_only=True, tag="flows"):
    """An agent's run ended, and this is what its receipt says.

    Attributes:
        digest: SHA-256 of the receipt, in the encoding it is written in.
        enforced: whether only what the receipt tells of could leave.
        verdict: what the proxy's count and the kernel's say of each other: "agreed", "disagreed", "unknown".
        connections, refused: how many there were, and how many tries were refused.
    """

    subject: str
    digest: str
    enforced: bool
    verdict: str
    connections: int
    refused: int


class DiskDestroyed(Entry, frozen=True, kw_only=True, tag="disk_destroyed"):
    """The disk of a cloud session, or a snapshot of it, is gone with its key, which has an entry of its own.

    Attributes:
        disk: the commitment to its id, by which the destruction of its key calls it (`commit_segment`).
        why: "expired", "erased", or "restored": see `KeysDestroyed`.
        retention: the terms that it was held under.
        digest: SHA-256 of the sealed disk as it was removed; empty where none was sealed.
        sealed_bytes: its size.
    """

    disk: str
    why: str
    retention: str
    digest: str
    sealed_bytes: int


class OperatorAppointed(Entry, frozen=True, kw_only=True, tag="operator"):
    """An account holder was made an operator of the service, or is none any more."""

    subject: str
    given: bool
    by: str


class RoleChanged(Entry, frozen=True, kw_only=True, tag="role"):
    """An admin made a member an admin of their organization, or an admin a member."""

    subject: str
    role: str
    by: str


class MemberAdded(Entry, frozen=True, kw_only=True, tag="member"):
    """An account was added to an organization that there was; whoever founds one joins nothing.

    Attributes:
        by: who added it; the organization where its identity provider let the holder in.
    """

    subject: str
    organization: str
    role: str
    by: str


class MemberSuspended(Entry, frozen=True, kw_only=True, tag="suspension"):
    """An admin keeps a member of their organization out, or lets them in again."""

    subject: str
    given: bool
    by: str


class SecretChanged(Entry, frozen=True, kw_only=True, tag="secret"):
    """A secret that sessions work with was kept, in the place of one before it, or removed. Of its value
    nothing is told.

    Attributes:
        subject: the account or the organization that it belongs to.
        secret: a pseudonym of its owner's, for its name.
        change: "kept" or "removed".
        exposed: whether sessions get the value itself.
    """

    subject: str
    secret: str
    change: str
    exposed: bool
    by: str


class SettingsManaged(Entry, frozen=True, kw_only=True, tag="managed_settings"):
    """An admin changed the settings that an organization's agents are served; the digest is of their text."""

    subject: str
    digest: str
    by: str


class RuleChanged(Entry, frozen=True, kw_only=True, tag="rule", omit_defaults=True):
    """An operator let agents reach a host that was refused, or no more.

    Attributes:
        digest: SHA-256 of `allow HOST:PORT`.
        given: false where it is taken back.
    """

    digest: str
    by: str
    given: bool = True


AnyEntry = (
    DecisionMade
    | ConsentChanged
    | ConsentRefused
    | TermsTightened
    | LimitChanged
    | KeyCreated
    | KeyRevoked
    | HoldPlaced
    | HoldReleased
    | KeysDestroyed
    | Erased
    | Swept
    | ContentRead
    | DatasetBuilt
    | BackedUp
    | KeyCopyDeleted
    | Restored
    | CopyWithdrawn
    | CopyForgotten
    | CopiesReached
    | FlowsReceipted
    | DiskDestroyed
    | SignedIn
    | SignInRefused
    | PasswordChanged
    | IdentityChanged
    | IdentityProviderChanged
    | PasskeyChanged
    | OperatorAppointed
    | RoleChanged
    | MemberAdded
    | MemberSuspended
    | SecretChanged
    | SettingsManaged
    | RuleChanged
)
# 512 commitments are 34 KB: below the 65,535 bytes that an entry bundle can carry (c2sp.org/tlog-tiles).
SEGMENTS_IN_AN_ENTRY = 512

_decoder: "msgspec.json.Decoder[AnyEntry]" = msgspec.json.Decoder(AnyEntry)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode_entry(entry: AnyEntry) -> bytes:
    """Encode an entry: JSON, one encoding only."""
    return _encoder.encode(entry)


def decode_entry(data: bytes) -> AnyEntry:
    """Reverse `encode_entry`.

    Raises:
        msgspec.MsgspecError: it is no entry this program knows.
    """
    return _decoder.decode(data)


def commit_segment(id: bytes) -> str:
    """Return what the ledger calls a segment; 128 random bits cannot be guessed from it."""
    return hashlib.sha256(b"bailee segment 1" + id).hexdigest()


def tell_destroyed(
    ids: Sequence[bytes], *, why: str, at_ms: int, draw: Callable[[], str]
) -> list[KeysDestroyed]:
    """Return the entries that tell of destroyed keys, so many to an entry."""
    return [
        KeysDestroyed(
            id=draw(),
            at_ms=at_ms,
            why=why,
            segments=tuple(commit_segment(id) for id in ids[start : start + SEGMENTS_IN_AN_ENTRY]),
        )
        for start in range(0, len(ids), SEGMENTS_IN_AN_ENTRY)
    ]
