"""Counts, the share that fails a run, and the file."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fuserank.errors import StageError
from fuserank.records.quarantine import Quarantine, write_quarantine
from fuserank.records.schema import QUARANTINE


def test_counts_and_limit() -> None:
    aside = Quarantine("products")
    aside.rows_in = 10
    aside.add("p.csv", 3, "row", "missing product_id")
    aside.add("p.csv", 5, "image", "unreadable picture", "x.png", "a")
    aside.add("p.csv", 5, "price", "bad price", "free", "a")
    assert aside.counts() == {"image: unreadable picture": 1, "price: bad price": 1, "row: missing product_id": 1}
    aside.check(9, 0.2)  # two rows of ten are touched
    with pytest.raises(StageError, match=r"2 of 10 rows.*bad price ×1.*max_quarantined"):
        aside.check(9, 0.19)
    with pytest.raises(StageError, match="10 rows in, but 8 out, 0 merged, 0 repeated and 1"):
        aside.check(8, 1.0)


def test_file(tmp_path: Path) -> None:
    first, second = Quarantine("products"), Quarantine("events")
    first.add("p.csv", 7, "row", "duplicate product_id", "y" * 1000, "a")
    first.add("p.csv", 2, "row", "missing product_id")
    assert write_quarantine([first, second], tmp_path / "q.parquet") == 2
    table = pq.read_table(tmp_path / "q.parquet")
    assert table.schema.equals(QUARANTINE)
    assert table["position"].to_pylist() == [2, 7]
    assert len(table["detail"][1].as_py()) == 200
