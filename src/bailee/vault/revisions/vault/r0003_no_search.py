"""What is deleted is found by an index, and nothing is searched for what may refer to it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take two foreign keys out that no index served, and add the index of exchanges without content."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint("records_exchange_fkey", "records", type_="foreignkey")
        op.drop_constraint("exchanges_segment_fkey", "exchanges", type_="foreignkey")
    else:
        _lay_out_anew()
    op.create_index(
        "exchanges_without_content",
        "exchanges",
        ["id"],
        sqlite_where=sa.text("segment IS NULL"),
        postgresql_where=sa.text("segment IS NULL"),
    )


def _lay_out_anew() -> None:
    """Make both tables again: SQLite takes no foreign key out of one."""
    op.create_table(
        "exchanges_anew",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("decision", sa.Integer, sa.ForeignKey("decisions.number"), nullable=False),
        sa.Column("flow", sa.Text, nullable=False),
        sa.Column("segment", sa.Integer, nullable=True),
        sa.Column("started_ms", sa.BigInteger, nullable=False),
        sa.Column("first_byte_ms", sa.Integer, nullable=True),
        sa.Column("duration_ms", sa.Integer, nullable=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=True),
        sa.Column("upstream", sa.Text, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=True),
        sa.Column("status", sa.Integer, nullable=True),
        sa.Column("request_bytes", sa.BigInteger, nullable=False),
        sa.Column("response_bytes", sa.BigInteger, nullable=True),
        sa.Column("input_tokens", sa.Integer, nullable=True),
        sa.Column("output_tokens", sa.Integer, nullable=True),
        sa.Column("cache_read_tokens", sa.Integer, nullable=True),
        sa.Column("cache_creation_tokens", sa.Integer, nullable=True),
        sa.Column("stop_reason", sa.Text, nullable=True),
    )
    op.create_table(
        "records_anew",
        sa.Column("segment", sa.Integer, sa.ForeignKey("segments.number"), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("exchange", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    for table in ("exchanges", "records"):
        op.execute(f"INSERT INTO {table}_anew SELECT * FROM {table}")  # noqa: S608
        op.execute(f"DROP TABLE {table}")
        op.execute(f"ALTER TABLE {table}_anew RENAME TO {table}")
    op.create_index("exchanges_by_session", "exchanges", ["account", "session"])
