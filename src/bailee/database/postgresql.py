"""PostgreSQL: a database for each store, made where the role may, at the revision of this program."""

import sqlalchemy as sa
import sqlalchemy.event
import sqlalchemy.exc

from bailee.database.locations import VARIABLE, Server
from bailee.database.presence import tell_lost
from bailee.database.stores import Store
from bailee.policy.problems import Problem

# The oldest version that its makers still mended when this was written.
OLDEST_MAJOR = 13
CONNECT_SECONDS = 5
# As long as SQLite waits for a lock: a node that hangs in the middle holds up nobody for ever. One that
# vanished with its machine is noticed, and its locks go, after some 60 s.
_SETTINGS = (
    "-c lock_timeout=10s -c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"
)
_CONNECT = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "bailee",
    "options": _SETTINGS,
    "tcp_user_timeout": 10_000,
}
# Drawn once: whoever makes or upgrades a database holds it, for the transaction that does.
_MAKING = 5_163_702_611_894_350
CHANNEL = "bailee_changes"
# Rows that PostgreSQL has to find dead before space is given back, beside a tenth of those there are.
_DEAD_ROWS = 1000


def open_server(server: Server, store: Store, *, create: bool = True) -> sa.Engine:
    """Open, make, or bring up to date a store's database.

    An answer is complete for an agent only once its record is durable, so that a server whose commits do not
    wait for the disk is told to wait for ours.

    Args:
        create: make what is missing; without it that was lost, and is refused.

    Raises:
        Problem: the driver is missing, the server cannot be reached or does not let us make what is missing,
            or the database was made by a newer program. It never holds the password.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise Problem(
            "PostgreSQL's driver is not installed",
            where=VARIABLE,
            fix="in a clone: pip install '.[postgresql]'",
        ) from None
    name = server.database(store.name)
    engine = sa.create_engine(
        server.url.set(database=name),
        connect_args=_CONNECT,
        pool_pre_ping=True,
        execution_options={"store": store},
    )
    sqlalchemy.event.listen(engine, "connect", _wait_for_the_disk)
    try:
        _connect(engine, server, store, create=create)
        _bring_up_to_date(engine, store, create=create)
    except Problem as problem:
        engine.dispose()
        problem.where = problem.where or f"{server.address}: {name}"
        raise
    except sqlalchemy.exc.DBAPIError as error:
        engine.dispose()
        raise Problem(
            f"the database cannot be used: {_tell(error, server)}",
            where=f"{server.address}: {name}",
            fix="check the server, the role and its password",
        ) from None
    return engine


def vacuum(engine: sa.Engine) -> bool:
    """Vacuum what the store says, so that dead rows leave their tables; tell whether that was done.

    Rows that a transaction may still see stay, as do the bytes of those that went, in the free space of their
    pages until something is written there, and in the write-ahead log until it is recycled.
    """
    store: Store = engine.get_execution_options()["store"]
    try:
        _vacuum(engine, store.vacuumed)
    except sqlalchemy.exc.OperationalError:
        return False
    return True


def give_back(engine: sa.Engine) -> int:
    """Vacuum the tables of which a tenth is dead rows, and return by how many bytes the database shrank.

    As autovacuum does at a fifth: what is at the end of a table goes back to the file system, the rest is
    used again.
    """
    with engine.connect() as connection:
        query = "SELECT relname FROM pg_stat_user_tables WHERE n_dead_tup > %s + n_live_tup / 10"
        crowded = tuple(connection.exec_driver_sql(query, (_DEAD_ROWS,)).scalars())
        if not crowded:
            return 0
        before = _size(connection)
    _vacuum(engine, crowded)
    with engine.connect() as connection:
        return max(0, before - _size(connection))


def _vacuum(engine: sa.Engine, tables: tuple[str, ...]) -> None:
    quote = engine.dialect.identifier_preparer.quote
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in tables:
            # Whoever else vacuums it does the same work.
            connection.exec_driver_sql(f"VACUUM (SKIP_LOCKED) {quote(table)}")


def _size(connection: sa.Connection) -> int:
    size: int = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
    return size


def _connect(engine: sa.Engine, server: Server, store: Store, *, create: bool) -> None:
    """Connect once, and make the database where it is missing.

    A refused connection does not say why in words that a program can rely on; the server's list of databases
    does.
    """
    try:
        connection = engine.connect()
    except sqlalchemy.exc.OperationalError as error:
        if not _create(server, store, error, create=create):
            raise
        connection = engine.connect()
    with connection:
        version = connection.dialect.server_version_info or ()
    if version < (OLDEST_MAJOR,):
        raise Problem(
            f"this is PostgreSQL {'.'.join(map(str, version))}", fix=f"use version {OLDEST_MAJOR} or newer"
        )


def _create(server: Server, store: Store, refused: sqlalchemy.exc.OperationalError, *, create: bool) -> bool:
    """Make a database; tell whether it was missing."""
    name = server.database(store.name)
    # Sorted by bytes, as in SQLite: what a list is sorted by does not depend on the server's language.
    command = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
    host = sa.create_engine(
        server.url.set(database="postgres"),
        connect_args=_CONNECT,
        isolation_level="AUTOCOMMIT",
        poolclass=sa.NullPool,
    )
    try:
        with host.connect() as connection:
            connection.exec_driver_sql("SELECT pg_advisory_lock(%s)", (_MAKING,))
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            # There by now: another process made it, or it was there and refused us for another reason.
            if connection.exec_driver_sql(query, (name,)).first() is None:
                if not create:
                    raise tell_lost(store.name, f"{server.address}: {name}")
                connection.exec_driver_sql(command)
        return True
    except sqlalchemy.exc.ProgrammingError as error:
        raise Problem(
            f"the database is missing and cannot be made: {_tell(error, server)}",
            fix=f"have it made by who may: {command} OWNER {server.url.username or 'ROLE'}",
        ) from None
    except sqlalchemy.exc.OperationalError:
        raise refused from None


def _bring_up_to_date(engine: sa.Engine, store: Store, *, create: bool) -> None:
    with engine.connect() as connection:
        if _read_revision(connection) == store.head:
            return
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_MAKING,))
        revision = _read_revision(connection)
        if revision == store.head:
            return
        if revision is None:
            if not create:
                raise tell_lost(store.name, "")
            # Not the tables that are missing only: those that are there would be somebody else's.
            store.metadata.create_all(connection, checkfirst=False)
            _tell_changes(connection, store)
            connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (%s)", (store.head,))
        elif revision > store.head:
            raise Problem(
                f"this database was made by a newer Bailee (revision {revision}, known here {store.head})",
                fix="run the newer version; nothing was changed",
            )
        else:
            from bailee.database.migrations import upgrade

            upgrade(connection, store, revision)


def _read_revision(connection: sa.Connection) -> str | None:
    """Return the revision a database is at, or None if it is empty."""
    # Asked of the catalogue: `to_regclass` answers from a cache, in which the table that another process made
    # while this one waited for the lock is still missing.
    query = "SELECT 1 FROM pg_class WHERE relname = 'alembic_version' AND pg_table_is_visible(oid)"
    if connection.exec_driver_sql(query).first() is None:
        return None
    return connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()


def _tell_changes(connection: sa.Connection, store: Store) -> None:
    """Have changes of the watched tables told with their commit: once for a statement, whatever its rows."""
    if not store.watched:
        return
    connection.exec_driver_sql(
        f"CREATE FUNCTION {CHANNEL}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN NOTIFY {CHANNEL}; RETURN NULL; END $$"
    )
    quote = connection.dialect.identifier_preparer.quote
    for table, changes in store.watched:
        connection.exec_driver_sql(
            f"CREATE TRIGGER {CHANNEL} AFTER {changes} OR TRUNCATE ON {quote(table)} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {CHANNEL}()"
        )


def _wait_for_the_disk(connection: sqlalchemy.engine.interfaces.DBAPIConnection, record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )
    cursor.close()
    connection.commit()


def _tell(error: sqlalchemy.exc.DBAPIError, server: Server) -> str:
    """Return what the server or the driver said, in one line and without the password."""
    text = " ".join(str(error.orig).split())
    password = server.url.password
    return text.replace(str(password), "***") if password else text
