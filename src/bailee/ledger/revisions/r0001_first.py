"""The pseudonyms as they were first made."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Begin here."""
    # Nothing: the tables are made as the program knows them.
