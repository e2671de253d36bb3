"""Terms that are tightened, legal holds, and entries for the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add ceilings, holds, the outbox and the index of what is due."""
    # Its key becomes the row id itself, and the index of the key goes.
    op.create_table(
        "exchanges_anew",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("decision", sa.Integer, sa.ForeignKey("decisions.number"), nullable=False),
        sa.Column("flow", sa.Text, nullable=False),
        sa.Column("segment", sa.Integer, sa.ForeignKey("segments.number"), nullable=True),
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
        sa.Column("input_tokens", sa.Integer, nullable=True),
        sa.Column("output_tokens", sa.Integer, nullable=True),
        sa.Column("cache_read_tokens", sa.Integer, nullable=True),
        sa.Column("cache_creation_tokens", sa.Integer, nullable=True),
        sa.Column("stop_reason", sa.Text, nullable=True),
    )
    op.execute("INSERT INTO exchanges_anew SELECT * FROM exchanges")
    op.execute("DROP TABLE exchanges")
    op.execute("ALTER TABLE exchanges_anew RENAME TO exchanges")
    op.create_index("exchanges_by_session", "exchanges", ["account", "session"])
    op.add_column(
        "segments", sa.Column("is_destroyed", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.create_index("segments_by_expiry", "segments", ["is_destroyed", "expires_on", "number"])
    op.create_table(
        "ceilings",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("at_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("retention", sa.Text, nullable=False),
        sa.Column("trainable", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "holds",
        sa.Column("account", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("session", sa.Text, nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("placed_by", sa.Text, nullable=False),
        sa.Column("placed_ms", sa.BigInteger, nullable=False),
        sa.Column("released_by", sa.Text, nullable=True),
        sa.Column("released_ms", sa.BigInteger, nullable=True),
        sa.Column("release_reason", sa.Text, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
