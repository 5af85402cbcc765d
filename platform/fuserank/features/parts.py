"""The products' features on disk, a part for each block of rows: written by data workers, each part whole or not there.

Reads a folder of STAGED rows; writes one of layout.part_schema with the same names, `<first row>.parquet`.
"""

import math
import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.features.earlier import Earlier
from fuserank.features.layout import feature_writer
from fuserank.features.rows import RowFeaturizer

FIRST = 64  # rows of the first blocks


@dataclass
class PartWriter:
    """What a data worker does with one block. Picklable.

    Args:
        rows: makes the features. staged: folder of STAGED rows, as `stage` wrote it. folder: gets the parts.
    """

    rows: RowFeaturizer
    staged: Path
    folder: Path

    def write(self, begin: int) -> pa.Table:
        """Featurize the block that begins at a row, write its part; returns rows.TOLD."""
        told, part = self.rows.apply(pq.read_table(self.staged / _name(begin)))
        _write(self.folder / _name(begin), part)
        return told


def block_begins(rows: int, size: int, workers: int) -> list[int]:
    """Where each block of rows begins. The first ones are small, so that answers come soon; each round doubles them up
    to `size`. Every worker has a block, or two, where there are rows enough."""
    begins, at, now = [], 0, max(1, min(size, FIRST, math.ceil(rows / (2 * workers))))
    while at < rows:
        for _ in range(workers):
            if at < rows:
                begins.append(at)
                at += now
        now = min(size, 2 * now)
    return begins


def stage(staged: pa.Table, folder: Path, begins: list[int]) -> None:
    """Write a table of STAGED rows as blocks that begin at these rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for begin, end in zip(begins, [*begins[1:], staged.num_rows], strict=True):
        pq.write_table(staged.slice(begin, end - begin), folder / _name(begin))


def set_aside(parts: Path, earlier: Path) -> Earlier:
    """Move the parts of an earlier run, finished or broken off, out of the way; returns them for taking rows from."""
    earlier.mkdir(parents=True, exist_ok=True)
    parts.mkdir(parents=True, exist_ok=True)
    for path in parts.iterdir():
        if path.suffix == ".parquet":
            path.replace(earlier / f"{uuid.uuid4().hex}.parquet")
        else:  # half a part, of a worker that was killed
            path.unlink()
    return Earlier.build(earlier)


def drop_rows(parts: Path, product_ids: Collection[str]) -> None:
    """Write the parts anew without some products."""
    for path in sorted(parts.glob("*.parquet")):
        part = pq.read_table(path)
        keep = [name not in product_ids for name in part["product_id"].to_pylist()]
        if not all(keep):
            _write(path, part.filter(pa.array(keep)))


def _name(begin: int) -> str:
    return f"{begin:012d}.parquet"


def _write(path: Path, part: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with feature_writer(temporary, part.schema) as file:
        file.write_table(part)
    temporary.replace(path)
