"""Who made a key, which says whether it proves the account holder."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; the keys that are there were made by nobody knows whom, and prove nobody."""
    op.add_column("keys", sa.Column("origin", sa.Text, nullable=True))
    op.add_column("keys", sa.Column("made_by", sa.Text, nullable=True))
