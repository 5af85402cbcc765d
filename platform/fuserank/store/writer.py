"""One thread that writes for everybody: calls that arrive while a commit is under way share the next one.

Writes the database it is given. A call returns only after the commit that holds its rows, so a row that was answered
for is on disk, and a hundred callers cost one disk flush instead of a hundred.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from fuserank.errors import StoreError
from fuserank.store.engine import unreachable, writing

GROUP_ROWS = 5000  # rows one commit holds at most (one call is never split)
T = TypeVar("T")


@dataclass
class _Call:
    table: sa.Table | None  # inserts: the rows that are not there yet
    rows: list[Any]
    work: Callable[[sa.Connection], Any] | None = None  # any other write
    done: "Future[Any]" = field(default_factory=Future)


class GroupWriter:
    """Idempotent inserts by primary key and other writes, grouped into commits. Thread-safe."""

    def __init__(self, engine: sa.Engine):
        self._engine = writing(engine)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self.commits = 0  # so far
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def insert(self, table: sa.Table, rows: list[dict[str, Any]]) -> int:
        """Insert rows that are not there yet; durable on return.

        Returns:
            How many were new. A key that came earlier, in this call or any other, is left as it was.

        Raises:
            StoreError: the database failed (nothing of this call was stored), or the writer is closed.
        """
        return self._hand_over(_Call(table, rows)) if rows else 0

    def run(self, work: Callable[[sa.Connection], T], rows: int = 1) -> T:
        """Do what `work` does with the connection of the next commit; durable on return.

        Works of one commit run one after the other, each in a savepoint: what one raises undoes only its own writes.

        Args:
            rows: roughly how many it writes.

        Raises:
            StoreError: as `insert`. Whatever else `work` raises.
        """
        return self._hand_over(_Call(None, [None] * rows, work))

    def _hand_over(self, call: _Call) -> Any:
        with self._lock:
            if self._closed:
                raise StoreError("the database is closed.")
            self._calls.put(call)
        return call.done.result()

    def close(self) -> None:
        """Finish what was handed over and stop."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            group, rows, last = [call], len(call.rows), False
            while rows < GROUP_ROWS and not last:
                try:
                    more = self._calls.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    last = True
                else:
                    group.append(more)
                    rows += len(more.rows)
            self._commit(group)
            if last:
                return

    def _commit(self, group: list[_Call]) -> None:
        try:
            results: list[Any] = [0] * len(group)
            refused: dict[int, Exception] = {}
            with self._engine.begin() as connection:
                for table in {call.table.name: call.table for call in group if call.table is not None}.values():
                    self._insert(connection, table, group, results)
                for place, call in enumerate(group):
                    if call.work is not None:
                        self._work(connection, call.work, place, results, refused)
            self.commits += 1
        except SQLAlchemyError as error:
            failure = unreachable(self._engine.url, error)
            for call in group:
                call.done.set_exception(failure)
        except BaseException as error:
            for call in group:
                call.done.set_exception(StoreError(f"the database writer failed: {type(error).__name__}: {error}"))
        else:
            for place, (call, result) in enumerate(zip(group, results, strict=True)):
                if place in refused:
                    call.done.set_exception(refused[place])
                else:
                    call.done.set_result(result)

    def _work(
        self,
        connection: sa.Connection,
        work: Callable[[sa.Connection], Any],
        place: int,
        results: list[Any],
        refused: dict[int, Exception],
    ) -> None:
        try:
            with connection.begin_nested():
                results[place] = work(connection)
        except SQLAlchemyError:
            raise
        except Exception as error:
            refused[place] = error

    def _insert(self, connection: sa.Connection, table: sa.Table, group: list[_Call], counts: list[int]) -> None:
        key = list(table.primary_key.columns)
        owners: dict[tuple, int] = {}  # key → the first call of the group that brought it
        first: dict[tuple, dict[str, Any]] = {}  # the first row of a key wins
        for place, call in enumerate(group):
            for row in call.rows if call.table is table else ():
                values = tuple(row[column.name] for column in key)
                if owners.setdefault(values, place) == place:
                    first.setdefault(values, row)
        unique = [first[values] for values in sorted(first)]  # in one order everywhere: two processes never deadlock
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).on_conflict_do_nothing(index_elements=key).returning(*key)
        for inserted in connection.execute(statement, unique):
            counts[owners[tuple(inserted)]] += 1
