"""The keystore as the first program made it."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Begin here."""
    # Nothing: a database of the first program carries these tables and no mark of a revision.
