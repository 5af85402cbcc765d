"""One thread that writes for everybody: calls that arrive while a commit is under way share the next one.

Writes the database it is given. A call returns only after the commit that holds its rows, so a row that was answered
for is on disk, and a hundred callers cost one disk flush instead of a hundred.
"""

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from fuserank.errors import StoreError
from fuserank.store.engine import unreachable, writing

GROUP_ROWS = 5000  # rows one commit holds at most (one call is never split)


@dataclass
class _Call:
    table: sa.Table
    rows: list[dict[str, Any]]
    done: "Future[int]" = field(default_factory=Future)


class GroupWriter:
    """Idempotent inserts by primary key, grouped into commits. Thread-safe."""

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
        if not rows:
            return 0
        call = _Call(table, rows)
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
            counts = [0] * len(group)
            with self._engine.begin() as connection:
                for table in {call.table.name: call.table for call in group}.values():
                    self._insert(connection, table, group, counts)
            self.commits += 1
        except SQLAlchemyError as error:
            failure = unreachable(self._engine.url, error)
            for call in group:
                call.done.set_exception(failure)
        except BaseException as error:
            for call in group:
                call.done.set_exception(StoreError(f"the database writer failed: {type(error).__name__}: {error}"))
        else:
            for call, count in zip(group, counts, strict=True):
                call.done.set_result(count)

    def _insert(self, connection: sa.Connection, table: sa.Table, group: list[_Call], counts: list[int]) -> None:
        (key,) = table.primary_key.columns
        owners: dict[Any, int] = {}  # key → the first call of the group that brought it
        rows = []
        for place, call in enumerate(group):
            for row in call.rows if call.table is table else ():
                if owners.setdefault(row[key.name], place) == place:
                    rows.append(row)
        first = {row[key.name]: row for row in reversed(rows)}  # the first one of a key wins
        unique = [first[name] for name in sorted(first)]  # in one order everywhere: two processes never deadlock
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table).on_conflict_do_nothing(index_elements=[key]).returning(key)
        for inserted in connection.execute(statement, unique).scalars():
            counts[owners[inserted]] += 1
