"""Copies of content that Bailee wrote outside the vault, and what they hold."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the registry of copies."""
    op.create_table(
        "copies",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("account", sa.Text, nullable=True),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("made_by", sa.Text, nullable=False),
        sa.Column("is_holders", sa.Boolean, nullable=False),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=True),
        sa.Column("next_digest", sa.Text, nullable=True),
        sa.Column("due_ms", sa.BigInteger, nullable=True),
        sa.Column("is_ended", sa.Boolean, nullable=False),
        sa.Column("fault", sa.Text, nullable=False),
        sa.Column("forgotten", sa.Text, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "copied",
        sa.Column("copy", sa.Text, sa.ForeignKey("copies.id"), primary_key=True),
        sa.Column("segment", sa.LargeBinary(16), primary_key=True),
        sa.Column("part", sa.Integer, nullable=False),
        sa.Column("why", sa.Text, nullable=True),
        sqlite_with_rowid=False,
    )
    op.create_index("copied_by_segment", "copied", ["segment"])
