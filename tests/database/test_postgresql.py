"""PostgreSQL: where a home's databases are, what is made and upgraded there, who hears of changes."""

import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bailee.accounts.directory import open_directory
from bailee.database.engines import (
    give_back,
    is_overwriting,
    open_database,
    truncate_log,
    watch_changes,
    watch_others,
)
from bailee.database.locations import MARKER, STORES, VARIABLE, parse_server
from bailee.database.statements import Insert
from bailee.database.stores import Store
from bailee.ledger.pseudonyms import open_pseudonyms
from bailee.policy.problems import Problem
from bailee.vault.custody import open_custody
from bailee.vault.store import open_keys, open_vault
from counterparts.databases import Server, draw_name

METADATA = sa.MetaData()
NOTES = sa.Table(
    "notes",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("text", sa.LargeBinary, nullable=True),
)
# In the database of the pseudonyms, as every name of a store is one of those.
STORE = Store(
    "pseudonyms",
    METADATA,
    Path("never-looked-at"),
    "0001",
    watched=(("notes", "INSERT OR UPDATE OR DELETE"),),
    vacuumed=("notes",),
)


@pytest.fixture
def name(postgresql: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give the name of databases that nobody has made yet, and set the variable to it."""
    drawn = draw_name()
    monkeypatch.setenv(VARIABLE, postgresql.url(drawn))
    yield drawn
    postgresql.drop(drawn)


@pytest.fixture
def engine(tmp_path: Path, name: str) -> Iterator[sa.Engine]:
    """Give a database of notes."""
    opened = open_database(tmp_path / "home" / "notes.db", STORE)
    yield opened
    opened.dispose()


# --- Where it is ---


def test_a_home_has_four_databases(tmp_path: Path, name: str, postgresql: Server) -> None:
    """They are made where they are missing; the home holds keys and the ledger, and no SQLite file."""
    home = tmp_path / "home"
    open_custody(home).close()
    with postgresql.connect() as connection:
        made = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", (f"{name}%",))
        assert {row[0] for row in made} == {f"{name}_{store}" for store in STORES}
    assert {path.name for path in home.iterdir()} == {"keystore", "ledger", "vault", "stores", MARKER}
    assert [path.name for path in (home / "keystore").iterdir()] == ["kek"]
    assert (home / MARKER).stat().st_mode & 0o777 == 0o600


def test_a_home_stays_where_it_is(
    tmp_path: Path, name: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the variable, or with another name, nothing is opened: never an empty SQLite in its place."""
    home = tmp_path / "home"
    for open_it in (open_vault, open_keys, open_directory):
        opened = open_it(home)
        opened.dispose() if isinstance(opened, sa.Engine) else opened.close()
        monkeypatch.delenv(VARIABLE)
        with pytest.raises(Problem, match="not set"):
            open_it(home)
        monkeypatch.setenv(VARIABLE, postgresql.url("another"))
        with pytest.raises(Problem, match="another"):
            open_it(home)
        monkeypatch.setenv(VARIABLE, postgresql.url(name))
    assert list(home.rglob("*.db")) == []


def test_a_home_of_files_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round: a variable that appears leads nobody to an empty database."""
    open_vault(tmp_path / "home").dispose()
    monkeypatch.setenv(VARIABLE, "postgresql://somebody@127.0.0.1:1/bailee")
    for open_it in (open_vault, open_keys, open_directory):
        with pytest.raises(Problem, match="SQLite files"):
            open_it(tmp_path / "home")


@pytest.mark.parametrize(
    "url",
    [
        "bailee",
        "sqlite:///x.db",
        "mysql://somebody@host/bailee",
        "postgresql:///bailee",
        "postgresql://somebody@host",
        "postgresql://somebody@host/Bailee",
        "postgresql://somebody@host/" + "x" * 53,
        "postgresql://somebody@host:port/bailee",
    ],
)
def test_what_is_no_server_is_refused(url: str) -> None:
    """Another database, no host, a name that databases cannot begin with: told, and never guessed."""
    with pytest.raises(Problem):
        parse_server(url)


def test_the_password_is_in_no_message_and_no_file(
    tmp_path: Path, name: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where it is wrong nor where all is well."""
    home = tmp_path / "home"
    monkeypatch.setenv(VARIABLE, postgresql.url(name, password="hunter2"))
    open_vault(home).dispose()
    assert "hunter2" not in (home / MARKER).read_text()
    monkeypatch.setenv(VARIABLE, f"postgresql://bailee:hunter2@127.0.0.1:1/{name}")
    with pytest.raises(Problem, match="cannot be used") as told:
        open_vault(tmp_path / "other")
    assert "hunter2" not in str(told.value) + "".join(traceback.format_exception(told.value))


def test_who_may_not_make_databases_is_told_how(
    tmp_path: Path, name: str, postgresql: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is in the message; once somebody has run it, the role works."""
    role = f"{name}_role"
    with postgresql.connect() as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
    monkeypatch.setenv(VARIABLE, postgresql.url(name, role))
    with pytest.raises(Problem, match="cannot be made") as told:
        open_vault(tmp_path / "home")
    assert told.value.fix is not None
    command = told.value.fix[told.value.fix.index("CREATE DATABASE") :]
    with postgresql.connect() as connection:
        connection.execute(command.encode())
    open_vault(tmp_path / "home").dispose()
    postgresql.drop(name)
    with postgresql.connect() as connection:
        connection.execute(f"DROP ROLE {role}".encode())


def test_two_ledgers_are_one_too_many(tmp_path: Path, name: str) -> None:
    """A second home beside the same databases is refused: its ledger would tell the other half."""
    open_custody(tmp_path / "home").close()
    with pytest.raises(Problem, match="have told theirs"):
        open_custody(tmp_path / "other")
    open_custody(tmp_path / "home").close()


# --- What is made ---


def test_processes_that_make_a_home_at_once_all_can(tmp_path: Path, name: str) -> None:
    """Services on several nodes begin in one moment, where nothing is yet."""
    program = (
        "import sys; from pathlib import Path; from bailee.vault.store import open_vault\n"
        "sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read(1)\n"
        "open_vault(Path(sys.argv[1])).dispose()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "home")]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.read(1) == b"."
    for maker in makers:
        maker.communicate(b"x")
    assert [maker.returncode for maker in makers] == [0] * 4


def test_an_older_database_is_upgraded(tmp_path: Path, engine: sa.Engine) -> None:
    """A revision is run once, in one transaction; one that fails changes nothing."""
    revisions = tmp_path / "revisions"
    revisions.mkdir()
    head = 'revision, down_revision, branch_labels, depends_on = "{}", {!r}, None, None\n'
    (revisions / "one.py").write_text(head.format("0001", None) + "def upgrade(): pass\n")
    (revisions / "two.py").write_text(
        "from alembic import op\nimport sqlalchemy as sa\n"
        + head.format("0002", "0001")
        + 'def upgrade():\n    op.add_column("notes", sa.Column("more", sa.Text))\n    op.execute("FAULT")\n'
    )
    newer = Store("pseudonyms", METADATA, revisions, "0002")
    path = tmp_path / "home" / "notes.db"
    with pytest.raises(Problem, match="FAULT"):
        open_database(path, newer)
    assert _describe(engine) == ({"id", "text"}, "0001")
    two = (revisions / "two.py").read_text().replace('op.execute("FAULT")', "pass")
    (revisions / "two.py").write_text(two)
    for _ in range(2):
        open_database(path, newer).dispose()
        assert _describe(engine) == ({"id", "text", "more"}, "0002")
    with pytest.raises(Problem, match="newer"):
        open_database(path, STORE)


def test_a_vault_of_the_revision_before_is_upgraded(tmp_path: Path, name: str) -> None:
    """Revisions from 0003 on lead from 0002 to what a new vault has: columns, keys, indexes and tables."""
    home = tmp_path / "home"
    engine = open_vault(home)
    before = _shape(engine)
    with engine.begin() as connection:
        for statement in (
            "ALTER TABLE records ADD FOREIGN KEY (exchange) REFERENCES exchanges",
            "ALTER TABLE exchanges ADD FOREIGN KEY (segment) REFERENCES segments",
            "DROP INDEX exchanges_without_content",
            "DROP TABLE copied",
            "DROP TABLE copies",
            "DROP TABLE triage",
            "DROP TABLE issues",
            "DROP TABLE error_groups",
            "DROP TABLE forwarded",
            "DROP TABLE next_hops",
            "ALTER TABLE segments DROP COLUMN flow",
            "ALTER TABLE ceilings DROP COLUMN flow",
            "UPDATE alembic_version SET version_num = '0002'",
        ):
            connection.exec_driver_sql(statement)
    assert _shape(engine) != before
    engine.dispose()
    engine = open_vault(home)
    assert _shape(engine) == before
    engine.dispose()


def _shape(engine: sa.Engine) -> list[tuple[list[object], ...]]:
    looking = sa.inspect(engine)
    return [
        (
            sorted(key["constrained_columns"] for key in looking.get_foreign_keys(table)),
            sorted(str(index["name"]) for index in looking.get_indexes(table)),
            sorted(column["name"] for column in looking.get_columns(table)),
        )
        for table in ("exchanges", "records", "segments", "ceilings")
    ]


def _describe(engine: sa.Engine) -> tuple[set[str], str]:
    columns = {column["name"] for column in sa.inspect(engine).get_columns("notes")}
    with engine.connect() as connection:
        return columns, connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()


def test_tables_of_somebody_else_are_left_alone(
    tmp_path: Path, name: str, postgresql: Server, engine: sa.Engine
) -> None:
    """A database that has such a table and no revision is not taken for ours."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    with pytest.raises(Problem, match="is gone"):
        open_database(tmp_path / "home" / "notes.db", STORE)
    with pytest.raises(Problem, match="already exists"):
        open_database(tmp_path / "another" / "notes.db", STORE)


def test_commits_wait_for_the_disk(tmp_path: Path, engine: sa.Engine) -> None:
    """Also where the server does not ask it of anybody, as the one of these tests."""
    with engine.connect() as connection:
        query = "SELECT current_setting('synchronous_commit'), reset_val FROM pg_settings "
        query += "WHERE name = 'synchronous_commit'"
        assert tuple(connection.exec_driver_sql(query).one()) == ("on", "off")


def test_a_prepared_insert_is_an_insert(engine: sa.Engine) -> None:
    """Rows go in as SQLAlchemy's own insert puts them: 63 bits, NULL and bytes; no rows are no error."""
    insert = Insert(engine, NOTES)
    rows = [{"id": (1 << 63) - 1, "text": b"\x00\xff"}, {"id": 2, "text": None}]
    with engine.begin() as connection:
        insert(connection, rows)
        insert(connection, [])
        assert [dict(row._mapping) for row in connection.execute(sa.select(NOTES))] == rows


def test_what_was_deleted_is_vacuumed_and_not_called_overwritten(engine: sa.Engine) -> None:
    """Dead rows leave their table; nobody is told that their bytes have left the disk."""
    with engine.begin() as connection:
        connection.execute(sa.insert(NOTES), [{"id": id, "text": bytes(500)} for id in range(2000)])
    with engine.begin() as connection:
        connection.execute(sa.delete(NOTES))
    size = sa.text("SELECT pg_relation_size('notes')")
    with engine.connect() as connection:
        assert connection.execute(size).scalar_one() > 2000 * 500
    assert truncate_log(engine)
    assert not is_overwriting(engine)
    with engine.connect() as connection:
        assert connection.execute(size).scalar_one() == 0
    assert give_back(engine, 1) == 0


# --- Who hears of changes ---


def test_others_commits_are_seen(tmp_path: Path, engine: sa.Engine) -> None:
    """By the very next look, many times over; a look without a commit before it sees nothing."""
    other = open_database(tmp_path / "home" / "notes.db", STORE)
    version = watch_changes(engine)
    for id in range(200):
        seen = version()
        assert version() == seen
        with (other if id % 2 else engine).begin() as connection:
            connection.execute(sa.insert(NOTES), {"id": id, "text": b"x"})
        assert version() != seen
    other.dispose()


def test_own_commits_are_not_others(tmp_path: Path, engine: sa.Engine) -> None:
    """A connection that watches for others does not see its own commits, and does see theirs."""
    other = open_database(tmp_path / "home" / "notes.db", STORE)
    with engine.connect() as own:
        version = watch_others(own)
        for id in range(0, 100, 2):
            seen = version()
            with own.begin():
                own.execute(sa.insert(NOTES), {"id": id, "text": b"mine"})
            assert version() == seen
            with other.begin() as connection:
                connection.execute(sa.insert(NOTES), {"id": id + 1, "text": b"theirs"})
            if id % 4:
                own.execute(sa.select(NOTES.c.id).limit(1)).all()  # the news may come with another answer
                own.rollback()
            assert version() != seen
    other.dispose()


def test_a_lost_connection_is_a_change(engine: sa.Engine, name: str, postgresql: Server) -> None:
    """What happened meanwhile was told to nobody; afterwards changes are seen as before."""
    version = watch_changes(engine)
    seen = version()
    with postgresql.connect(f"{name}_pseudonyms") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert version() != seen
    version()
    seen = version()
    assert version() == seen
    with engine.begin() as connection:
        connection.execute(sa.insert(NOTES), {"id": 1, "text": b"x"})
    assert version() != seen


def test_pseudonyms_are_one_for_each_person(tmp_path: Path, name: str) -> None:
    """Two processes that name a person for the first time give the same name."""
    drawn = iter((bytes([1]) * 32, bytes([2]) * 32))
    one, other = (
        open_pseudonyms(tmp_path / "home" / "keystore", lambda count: next(drawn)) for _ in range(2)
    )
    assert one.name("ada") == other.name("ada")
    one.forget("ada")
    one.close()
    other.close()
