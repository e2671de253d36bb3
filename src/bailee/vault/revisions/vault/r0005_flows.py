"""Segments and ceilings say of which flow they are: each flow's terms are tightened by its own rules."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The year 9999: ceilings of accounts whose erasure is decided end every flow.
_FOR_EVER_MS = 253_370_764_800_000


def upgrade() -> None:
    """Add the flow, without writing a row anew: both databases keep the default beside the table."""
    for table in ("segments", "ceilings"):
        op.add_column(table, sa.Column("flow", sa.Text, nullable=False, server_default="messages"))
    # Nobody's account is where ratings were held; an index finds it.
    op.execute("UPDATE segments SET flow = 'survey' WHERE account = ''")
    op.execute(f"UPDATE ceilings SET flow = '*' WHERE at_ms >= {_FOR_EVER_MS}")  # noqa: S608
