"""The vault's and the keystore's tables.

Content is in `records.sealed` and nowhere else, always an envelope. The other columns are facts about
it: who, when, how much, under which terms. Times are milliseconds since 1970 UTC, durations milliseconds.
"""

from datetime import date
from enum import StrEnum
from pathlib import Path

import sqlalchemy as sa

from bailee.database.leases import lease_table
from bailee.database.stores import Store
from bailee.ledger.origins import origin_table
from bailee.ledger.outbox import outbox_table

# Tables without row ids where the key is not a number: a tree of their own for the key would take a page
# more, and a 12-turn session takes 80 in all.
vault = sa.MetaData()
# SQLite's INTEGER has 64 bits, and as a key it is the row id itself; PostgreSQL's has 32.
_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
keystore = sa.MetaData()
_NO_CONTENT = sa.text("segment IS NULL")
_REVISIONS = Path(__file__).parent / "revisions"
VAULT = Store(
    "vault",
    vault,
    _REVISIONS / "vault",
    "0009",
    can_shrink=True,
    file="vault/vault.db",
    # What tightens or erases; every segment that begins would tell all recorders to look again.
    watched=(("segments", "UPDATE OR DELETE"),),
)
KEYSTORE = Store(
    "keystore",
    keystore,
    _REVISIONS / "keystore",
    "0004",
    page_bytes=512,
    file="keystore/keys.db",
    watched=(("keys", "DELETE"),),
    vacuumed=("keys",),
)


class State(StrEnum):
    """How an exchange stands, or how it ended.

    Attributes:
        OPEN: the answer is still coming.
        COMPLETE: the upstream's whole answer was relayed, whatever its status.
        CLIENT_GONE: the agent hung up before the answer was complete.
        UPSTREAM_FAILED: no answer, or an answer cut off by the upstream.
        INTERRUPTED: the service ended while the answer was coming.
        REFUSED: the policy or a limit refused the request; nothing was sent upstream.
    """

    OPEN = "open"
    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    UPSTREAM_FAILED = "upstream_failed"
    INTERRUPTED = "interrupted"
    REFUSED = "refused"


# The day that stands in for the expiry of what is to go at once, whatever its terms were.
ERASED = date(1, 1, 1)
# What segments of cloud sessions' disks are of: no flow of a manifest's.
DISKS = "cloud"


class Kind:
    """What a record holds: `records.kind`."""

    REQUEST = 0
    RESPONSE = 1


decisions = sa.Table(
    "decisions",
    vault,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("body", sa.Text, nullable=False),
)

segments = sa.Table(
    "segments",
    vault,
    sa.Column("number", _BIG, primary_key=True, autoincrement=False),
    sa.Column("id", sa.LargeBinary(16), nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("day", sa.Date, nullable=False),
    sa.Column("decision", sa.Integer, sa.ForeignKey("decisions.number"), nullable=False),
    sa.Column("retention", sa.Text, nullable=False),
    # The terms in force: those of the decision, or what tightened them since.
    # Held until this day begins, UTC; NULL only for `unlimited`; ERASED for what somebody had erased.
    sa.Column("expires_on", sa.Date, nullable=True),
    sa.Column("trainable", sa.Boolean, nullable=False),
    # Its key is destroyed, and its rows are about to go.
    sa.Column("is_destroyed", sa.Boolean, nullable=False, server_default=sa.false()),
    # The flow it is of, whose terms bound it.
    sa.Column("flow", sa.Text, nullable=False, server_default="messages"),
    # One per day and decision: terms that change during a day start another segment, for loosening applies to
    # what comes later. Not unique, for an erased segment's row may still be there when the next one begins.
    sa.Index("segments_by_session", "account", "session", "day"),
    # Finds what is due, so that a sweep costs by what is due and not by what is held.
    sa.Index("segments_by_expiry", "is_destroyed", "expires_on", "number"),
)

# What tightened the terms of everything that an account holds of a flow, and when. A request admitted before
# that, whose segment is written after it, is tightened by its row here.
ceilings = sa.Table(
    "ceilings",
    vault,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("at_ms", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("retention", sa.Text, nullable=False),
    sa.Column("trainable", sa.Boolean, nullable=False),
    # Of which flow; `ceilings.EVERY` for all.
    sa.Column("flow", sa.Text, nullable=False, server_default="messages"),
    sqlite_with_rowid=False,
)

# Legal holds: what they cover is neither erased nor expired until they are released.
holds = sa.Table(
    "holds",
    vault,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    # NULL covers every session of the account.
    sa.Column("session", sa.Text, nullable=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("placed_by", sa.Text, nullable=False),
    sa.Column("placed_ms", sa.BigInteger, nullable=False),
    sa.Column("released_by", sa.Text, nullable=True),
    sa.Column("released_ms", sa.BigInteger, nullable=True),
    sa.Column("release_reason", sa.Text, nullable=True),
    sqlite_with_rowid=False,
)

# What was made of reports (`flows.feedback`); a report without a row is open. It goes with the report.
triage = sa.Table(
    "triage",
    vault,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("report", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Issues that people asked for beside their reports. What they say is sealed, in `exchange`.
issues = sa.Table(
    "issues",
    vault,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("report", sa.Text, primary_key=True),
    sa.Column("exchange", sa.BigInteger, nullable=False),
    sa.Column("repository", sa.Text, nullable=False),
    # A `flows.feedback.queue.IssueState`; a node that has taken one puts `next_ms` off.
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("asked_ms", sa.BigInteger, nullable=False),
    sa.Column("next_ms", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("fault", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# What was decided of a group of errors; one without a row is open. The group is told by a digest.
error_groups = sa.Table(
    "error_groups",
    vault,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("changed_by", sa.Text, nullable=False),
    sa.Column("changed_ms", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Where metrics and errors are forwarded to, and how far that has come; what waits is what is held.
next_hops = sa.Table(
    "next_hops",
    vault,
    sa.Column("name", sa.Text, primary_key=True),
    # Scheme, host and port; never a credential.
    sa.Column("target", sa.Text, nullable=False),
    # The id of the latest exchange that is done with.
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("sent", sa.BigInteger, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),
    sa.Column("overdue", sa.BigInteger, nullable=False),
    # A node that has taken one puts `next_ms` off.
    sa.Column("next_ms", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("succeeded_ms", sa.BigInteger, nullable=True),
    sa.Column("fault", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)

# Exchanges that are done with, as long as one that began earlier may still come.
forwarded = sa.Table(
    "forwarded",
    vault,
    sa.Column("hop", sa.Text, sa.ForeignKey("next_hops.name"), primary_key=True),
    sa.Column("exchange", sa.BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# What is noted of reports beside their content, by account and report.
OF_REPORTS = (triage, issues)

vault_outbox = outbox_table(vault)

exchanges = sa.Table(
    "exchanges",
    vault,
    sa.Column("id", _BIG, primary_key=True, autoincrement=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("session", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("decision", sa.Integer, sa.ForeignKey("decisions.number"), nullable=False),
    sa.Column("flow", sa.Text, nullable=False),
    # NULL where no content is kept: zero data retention, and refusals. No foreign key, nor in records: for
    # each row that is deleted the database would look for those that refer to it, without an index (0.1 s for
    # each at 200,000 segments), and an index would cost every exchange that is recorded.
    sa.Column("segment", _BIG, nullable=True),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("first_byte_ms", sa.Integer, nullable=True),
    sa.Column("duration_ms", sa.Integer, nullable=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=True),
    sa.Column("upstream", sa.Text, nullable=False),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=True),
    sa.Column("status", sa.Integer, nullable=True),
    sa.Column("request_bytes", sa.BigInteger, nullable=False),
    sa.Column("response_bytes", sa.BigInteger, nullable=True),
    sa.Column("input_tokens", _BIG, nullable=True),
    sa.Column("output_tokens", _BIG, nullable=True),
    sa.Column("cache_read_tokens", _BIG, nullable=True),
    sa.Column("cache_creation_tokens", _BIG, nullable=True),
    sa.Column("stop_reason", sa.Text, nullable=True),
    sa.Index("exchanges_by_session", "account", "session"),
    # Finds the facts that are to go among the exchanges that are held for years; those are not in it.
    sa.Index("exchanges_without_content", "id", sqlite_where=_NO_CONTENT, postgresql_where=_NO_CONTENT),
)

records = sa.Table(
    "records",
    vault,
    sa.Column("segment", _BIG, sa.ForeignKey("segments.number"), primary_key=True, autoincrement=False),
    sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("exchange", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
)

# What Bailee itself wrote outside the vault: exports and datasets, from before the first byte of content on.
copies = sa.Table(
    "copies",
    vault,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    # NULL for a dataset: it holds many.
    sa.Column("account", sa.Text, nullable=True),
    sa.Column("folder", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("made_by", sa.Text, nullable=False),
    # Made by the account holder of what is theirs: it is listed, and nobody takes anything out of it.
    sa.Column("is_holders", sa.Boolean, nullable=False),
    sa.Column("made_ms", sa.BigInteger, nullable=False),
    # SHA-256 of its index file; NULL while it is being written.
    sa.Column("digest", sa.Text, nullable=True),
    # That of the index file which is about to take its place; empty where all of it is about to go.
    sa.Column("next_digest", sa.Text, nullable=True),
    # Since when something is to be taken out of it; NULL if nothing is.
    sa.Column("due_ms", sa.BigInteger, nullable=True),
    # All of it is to go: its account was erased.
    sa.Column("is_ended", sa.Boolean, nullable=False),
    # Why it could not be done; empty if it could, or was not tried yet.
    sa.Column("fault", sa.Text, nullable=False),
    # Why nobody follows it any more; NULL if it is followed.
    sa.Column("forgotten", sa.Text, nullable=True),
    sqlite_with_rowid=False,
)

# What a copy holds, by segment id, or by what stands for a session of which only facts are held.
copied = sa.Table(
    "copied",
    vault,
    sa.Column("copy", sa.Text, sa.ForeignKey("copies.id"), primary_key=True),
    sa.Column("segment", sa.LargeBinary(16), primary_key=True),
    # Which of a dataset's files it is in.
    sa.Column("part", sa.Integer, nullable=False),
    # Why it is to be taken out; NULL if it is not.
    sa.Column("why", sa.Text, nullable=True),
    # A sweep costs by what is due, and not by what copies hold.
    sa.Index("copied_by_segment", "segment"),
    sqlite_with_rowid=False,
)

# Destroying a row here erases the segment in every copy of the vault there is.
keys = sa.Table(
    "keys",
    keystore,
    sa.Column("segment", sa.LargeBinary(16), primary_key=True),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Keys whose segments were not on disk yet when they were made (`vault.strays`).
fresh_keys = sa.Table(
    "fresh_keys",
    keystore,
    sa.Column("segment", sa.LargeBinary(16), primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("at_ms", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

keystore_outbox = outbox_table(keystore)
leases = lease_table(keystore)
origins = origin_table(keystore)

# One row a ledger: what it was when it was last added to, see `anchors`.
anchors = sa.Table(
    "anchors",
    keystore,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("root", sa.LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

# One row a node: what its sweeper did last.
sweepers = sa.Table(
    "sweepers",
    keystore,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("started_ms", sa.BigInteger, nullable=False),
    sa.Column("finished_ms", sa.BigInteger, nullable=True),
    sa.Column("succeeded_ms", sa.BigInteger, nullable=True),
    sa.Column("keys_destroyed", sa.BigInteger, nullable=False),
    sa.Column("bytes_reclaimed", sa.BigInteger, nullable=False),
    # Why it did not go on; empty if it did.
    sa.Column("fault", sa.Text, nullable=False),
    # The machine's boot and its clock since then, which nobody sets: what the wall clock is compared with.
    sa.Column("boot_id", sa.Text, nullable=False),
    sa.Column("boot_ms", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
