"""Opens a database so that an acknowledged write is on disk: SQLite (WAL, synchronous = FULL) or PostgreSQL.

Reads and writes nothing but the connection's settings, and the schema by `migrate`.
"""

import importlib.util
import random
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.event
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.exc import ArgumentError, DBAPIError

from fuserank.errors import StoreError

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 30
ADVISORY_LOCK = 7_236_341_807_116_441_201  # any constant: one migration at a time on a PostgreSQL database


def open_engine(url: str) -> sa.Engine:
    """An engine with durable settings, its schema at the newest migration.

    Raises:
        StoreError: malformed URL, a database kind we do not support, a missing driver, or unreachable.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})
        sqlalchemy.event.listen(engine, "connect", _sqlite_settings)
        sqlalchemy.event.listen(engine, "begin", _sqlite_begin)
    else:
        engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        sqlalchemy.event.listen(engine, "connect", _postgres_settings)
    try:
        migrate(engine)
    except DBAPIError as error:
        engine.dispose()
        raise unreachable(parsed, error) from error
    return engine


def refuse_on_a_cluster(url: str, nodes: int) -> None:
    """SQLite's locks and its write-ahead log work on one machine only.

    Raises:
        StoreError: SQLite for a service on more than one node.
    """
    if nodes > 1 and url.startswith("sqlite"):
        raise StoreError(
            f"SQLite keeps nothing safe on {nodes} nodes.",
            "Set store.url to a PostgreSQL database: postgresql://user@host/fuserank (and install fuserank[postgres]).",
        )


def writing(engine: sa.Engine) -> sa.Engine:
    """The same engine, its transactions taking the write lock at once (a lock taken later can fail half-way)."""
    return engine.execution_options(writing=True)


def migrate(engine: sa.Engine) -> None:
    """Bring the schema to the newest migration; safe when several processes open the database at the same time."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    newest = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if MigrationContext.configure(connection).get_current_revision() == newest:
            return
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def truncate_log(engine: sa.Engine) -> bool:
    """Bring SQLite's write-ahead log, which still holds what was deleted, into the database and empty it.

    Returns:
        Whether it is empty; False while somebody reads an older state. PostgreSQL's own vacuum does this there.
    """
    if engine.dialect.name == "postgresql":
        return True
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        try:
            cursor.execute("PRAGMA busy_timeout=500")
            busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]  # type: ignore[index]
        finally:
            cursor.execute(f"PRAGMA busy_timeout={1000 * BUSY_SECONDS}")
            cursor.close()
    return busy == 0


def unreachable(url: sa.URL, error: Exception) -> StoreError:
    """What to tell when the database fails; the password never shows."""
    reason = str(getattr(error, "orig", error)).strip().splitlines()
    shown = url.render_as_string(hide_password=True)
    return StoreError(f"the database {shown} failed: {reason[0] if reason else type(error).__name__}.", _REMEDY)


_REMEDY = "Check that it runs, that its disk has room and that this user may write there."


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except ArgumentError:
        raise StoreError("the database URL is malformed.", "Write e.g. sqlite:////data/fuserank.db") from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if not parsed.database or ":memory:" in parsed.database:
            raise StoreError("a database in memory keeps nothing.", "Name a file: sqlite:////data/fuserank.db")
        return parsed
    if kind != "postgresql":
        raise StoreError(f"databases of kind {kind!r} are not supported.", "Use a sqlite:/// or postgresql:// URL.")
    if importlib.util.find_spec("psycopg") is None:
        raise StoreError("PostgreSQL needs the psycopg driver.", "Run `pip install psycopg[binary]`.")
    return parsed.set(drivername="postgresql+psycopg")


def _sqlite_settings(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            journal = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            break
        except connection.OperationalError:  # switching to WAL ignores the busy timeout
            if time.monotonic() > deadline:
                raise
            time.sleep(random.uniform(0.005, 0.05))
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA secure_delete=ON")  # what is erased leaves no bytes behind
    synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]
    cursor.close()
    if (journal, synchronous) != ("wal", 2):
        raise StoreError(
            f"SQLite refused durable settings (journal {journal}, synchronous {synchronous}).",
            "Keep the database on a local disk, or use a postgresql:// URL.",
        )


def _sqlite_begin(connection: sa.Connection) -> None:
    immediate = connection.get_execution_options().get("writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _postgres_settings(connection: Any, _record: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit TO on")
    connection.commit()
