"""What every part of the database's front has: an engine, the one writer, reads. See database.py."""

from collections.abc import Callable
from typing import Self, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from fuserank.store.engine import open_engine, unreachable
from fuserank.store.writer import GroupWriter

T = TypeVar("T")


class Connected:
    """Opens the database, migrating it if needed, and starts its writer."""

    def __init__(self, url: str):
        """
        Raises:
            StoreError: malformed URL, missing driver, unreachable, or settings that are not durable.
        """
        self._engine = open_engine(url)
        self._writer = GroupWriter(self._engine)

    @property
    def commits(self) -> int:
        """Commits this object has made; fewer than calls when calls shared them."""
        return self._writer.commits

    def close(self) -> None:
        """Finish running writes and let go of the connections."""
        self._writer.close()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, query: Callable[[sa.Connection], T]) -> T:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except SQLAlchemyError as error:
            raise unreachable(self._engine.url, error) from error
