"""Accesses by others than the account holder, and entries for the ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add accesses, the holder's user id, the outbox."""
    op.add_column("accounts", sa.Column("user_id", sa.Integer, nullable=True))
    op.create_table(
        "accesses",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("account", sa.Text, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("session", sa.Text, nullable=True),
        sa.Column("reader", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("accesses_by_account", "accesses", ["account", "number"])
    op.create_table(
        "outbox",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("entry", sa.LargeBinary, nullable=False),
    )
