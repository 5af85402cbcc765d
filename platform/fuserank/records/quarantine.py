"""What was set aside and why: a bad row or value never stops a run and never vanishes.

Writes `quarantine.parquet` (schema QUARANTINE).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.errors import StageError
from fuserank.records.schema import QUARANTINE

ROW = "row"
DETAIL = 200  # characters of a detail that are kept


class Quarantine:
    """The set-aside parts of one table's rows."""

    def __init__(self, table: str):
        """Takes the table's name, for messages: products, queries, judgments or events."""
        self.table = table
        self.rows_in = 0
        self.kept = 0  # rows that went out, for `check`
        self.merged = 0  # variants that another product now stands for
        self.repeated = 0  # rows that say nothing but what an earlier one said: that one stands for them
        self._entries: list[tuple[str, int, str | None, str, str, str | None]] = []

    def add(
        self, source: str, position: int, part: str, reason: str, detail: object = None, product_id: str | None = None
    ):
        """Set aside one part (`row`, or a field or modality) of the row at `position` of file `source`."""
        shown = None if detail is None else str(detail).encode("utf-8", "replace").decode("utf-8")[:DETAIL]
        self._entries.append((source, position, product_id, part, reason, shown))

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def rows(self) -> int:
        """How many whole rows were set aside."""
        return sum(1 for entry in self._entries if entry[3] == ROW)

    def counts(self) -> dict[str, int]:
        """`part: reason` → how often, most frequent first."""
        found = Counter(f"{entry[3]}: {entry[4]}" for entry in self._entries)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def check(self, rows_out: int, limit: float) -> None:
        """Fail unless every row went either out or here, and if too many rows are touched.

        Raises:
            StageError: rows are missing or doubled, or more than the share `limit` of rows has something set aside.
        """
        if self.rows_in != rows_out + self.merged + self.repeated + self.rows:
            raise StageError(
                f"{self.table}: {self.rows_in} rows in, but {rows_out} out, {self.merged} merged, "
                f"{self.repeated} repeated and {self.rows} in quarantine.",
                "This is a defect of fuserank: please report it with the config.",
            )
        touched = len({entry[:2] for entry in self._entries})
        if self.rows_in and touched / self.rows_in > limit:
            counts = ", ".join(f"{reason} ×{count}" for reason, count in list(self.counts().items())[:6])
            raise StageError(
                f"{self.table}: {touched} of {self.rows_in} rows have something in quarantine ({counts}), "
                f"more than preprocess.max_quarantined = {limit:g}.",
                "Correct the data or the mapping in the config's records section, or raise preprocess.max_quarantined.",
            )

    def to_table(self) -> pa.Table:
        """All entries by file and position, as QUARANTINE."""
        ordered = sorted(self._entries, key=lambda entry: (entry[0], entry[1], entry[3]))
        columns = list(zip(*ordered, strict=True)) if ordered else [[] for _ in QUARANTINE]
        by_name = dict(zip(("source", "position", "product_id", "part", "reason", "detail"), columns, strict=True))
        return pa.table([pa.array(by_name[f.name], f.type) for f in QUARANTINE], schema=QUARANTINE)


def write_quarantine(parts: Iterable[Quarantine], path: Path) -> int:
    """Write all tables' entries to one Parquet file; returns how many there are."""
    table = pa.concat_tables([part.to_table() for part in parts])
    pq.write_table(table, path)
    return table.num_rows
