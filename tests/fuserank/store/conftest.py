"""Databases of both kinds for the contract suite."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fuserank.store.database import Database, run_database
from tests.fuserank.store import postgres

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A running PostgreSQL's URL, `{}` for the database's name."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return run_database(tmp_path)[1]
    template, name = request.getfixturevalue("postgres_url"), f"test{next(_NUMBERS)}"
    engine = sa.create_engine(
        sa.make_url(template.format("postgres")).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return template.format(name)


@pytest.fixture
def any_database(any_url: str) -> Iterator[Database]:
    with Database(any_url) as database:
        yield database
