"""Where metrics and errors are forwarded to, and how far that has come."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add next hops, and what is done with of late."""
    op.create_table(
        "next_hops",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("overdue", sa.BigInteger, nullable=False),
        sa.Column("next_ms", sa.BigInteger, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("succeeded_ms", sa.BigInteger, nullable=True),
        sa.Column("fault", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "forwarded",
        sa.Column("hop", sa.Text, sa.ForeignKey("next_hops.name"), primary_key=True),
        sa.Column("exchange", sa.BigInteger, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
