"""Keys that nothing was written under: a recorder that was killed between its key and its segment leaves one.

It opens nothing of record. But an aborted write may still lie in a file of the vault, and would open with it
for as long as the key is there, whatever is erased meanwhile.
"""

from datetime import UTC, datetime

import sqlalchemy as sa
import sqlalchemy.exc

from bailee.vault import tables
from bailee.vault.keystore import Fresh, Keystore

# A recorder takes milliseconds from a key to its segment. One that stood still for longer than this may find
# its key gone, and ends.
PATIENCE_MS = 60_000


def mark_strays(vault: sa.Engine, keystore: Keystore, *, at_ms: int) -> int:
    """Mark what stray keys would have been the keys of, so that they are destroyed with all that is due.

    A row with the segment's number keeps its recorder, should it go on now, from writing under a key that is
    about to go; one that comes even later, when that row is gone too, looks for its key before it tells
    anybody that something is kept (`VaultWriter`). So no clock has to be right.

    Args:
        at_ms: milliseconds since 1970 UTC.

    Returns:
        How many there were.
    """
    fresh = keystore.list_fresh(before_ms=at_ms - PATIENCE_MS)
    if not fresh:
        return 0
    segments, decisions = tables.segments, tables.decisions
    with vault.connect() as connection:
        query = sa.select(segments.c.number).where(segments.c.number.in_([one.number for one in fresh]))
        written = set(connection.execute(query).scalars())
        decision = connection.execute(sa.select(sa.func.min(decisions.c.number))).scalar_one()
    marked = sum(_mark(vault, one, decision) for one in fresh if one.number not in written)
    keystore.forget_fresh(fresh)
    return marked


def _mark(vault: sa.Engine, stray: Fresh, decision: int) -> bool:
    day = datetime.fromtimestamp(stray.at_ms / 1000, UTC).date()
    row = {
        "number": stray.number,
        "id": stray.segment,
        "account": "",
        "session": "",
        "day": day,
        "decision": decision,
        "retention": "none",
        "expires_on": day,
        "trainable": False,
    }
    try:
        with vault.begin() as connection:
            connection.execute(sa.insert(tables.segments), row)
    except sqlalchemy.exc.IntegrityError:
        return False  # its recorder has just written it
    return True
