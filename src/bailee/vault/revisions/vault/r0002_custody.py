"""Terms that are tightened, legal holds, sweepers, and entries for the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add ceilings, holds, sweepers, the outbox and the index of what is due."""
    op.add_column(
        "segments", sa.Column("is_destroyed", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.create_index("segments_by_expiry", "segments", ["is_destroyed", "expires_on", "number"])
    op.create_table(
        "ceilings",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("retention", sa.Text, nullable=False),
        sa.Column("trainable", sa.Boolean, nullable=False),
    )
    op.create_index("ceilings_by_account", "ceilings", ["account", "number"])
    op.create_table(
        "holds",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("placed_by", sa.Text, nullable=False),
        sa.Column("placed_ms", sa.BigInteger, nullable=False),
        sa.Column("released_by", sa.Text, nullable=True),
        sa.Column("released_ms", sa.BigInteger, nullable=True),
        sa.Column("release_reason", sa.Text, nullable=True),
    )
    op.create_index("holds_by_account", "holds", ["account", "released_ms"])
    op.create_table(
        "sweepers",
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("finished_ms", sa.BigInteger, nullable=True),
        sa.Column("succeeded_ms", sa.BigInteger, nullable=True),
        sa.Column("keys_destroyed", sa.BigInteger, nullable=False),
        sa.Column("bytes_reclaimed", sa.BigInteger, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("boot_id", sa.Text, nullable=False),
        sa.Column("boot_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "outbox",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
