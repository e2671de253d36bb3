"""Entries for the ledger wait beside the keys whose destruction they tell of."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lay the keys out anew, and add the sweepers, the outbox, the leases and the ledger's origin."""
    op.rename_table("keys", "keys_before")
    op.create_table(
        "keys",
        sa.Column("segment", sa.LargeBinary(16), primary_key=True),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO keys SELECT segment, wrapped FROM keys_before")
    op.drop_table("keys_before")
    op.create_table(
        "outbox",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
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
        sqlite_with_rowid=False,
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "origins",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("origin", sa.Text, nullable=False),
    )
