"""Which accounts an organization's admin suspended."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add it; none is suspended."""
    op.add_column("accounts", sa.Column("suspended_ms", sa.BigInteger, nullable=True))
