"""Parquet → raw rows."""

import gzip
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.errors import InputError
from fuserank.records.rows import RawRow, TableFile, flat, guarded

READ_AT_ONCE = 4096  # rows
LARGEST = 4 * 1024**3  # bytes, of a file inside a zip or gzip


def parquet(stream: IO[bytes], source: str) -> TableFile:
    """Rows of a Parquet file; columns inside structs are named `outer.inner` as well."""
    packed = isinstance(stream, (gzip.GzipFile, zipfile.ZipExtFile))  # Parquet is read from its end
    file = pq.ParquetFile(pa.BufferReader(_limited(stream, source)) if packed else stream)
    nested = any(pa.types.is_struct(column.type) or pa.types.is_map(column.type) for column in file.schema_arrow)

    def rows() -> Iterator[RawRow]:
        position = 0
        for batch in file.iter_batches(READ_AT_ONCE):
            for values in _values(batch):
                if isinstance(values, str):
                    yield RawRow(source, position, None, "unreadable row", values)
                else:
                    yield RawRow(source, position, flat(values) if nested else values)
                position += 1

    return TableFile(source, _names_in(file.schema_arrow), guarded(rows(), source))


def _limited(stream: IO[bytes], source: str) -> bytes:
    data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise InputError(f"{source} has more than {LARGEST} bytes unpacked.", "Give it unpacked.")
    return data


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Rows, or what is wrong with one (text that is no UTF-8, times beyond every calendar)."""
    try:
        yield from batch.to_pylist(maps_as_pydicts="lossy")
    except (ValueError, OverflowError):
        for place in range(batch.num_rows):
            try:
                yield from batch.slice(place, 1).to_pylist(maps_as_pydicts="lossy")
            except (ValueError, OverflowError) as error:
                yield str(error)


def _names_in(schema: pa.Schema | pa.StructType, before: str = "") -> list[str]:
    """Column names, those inside objects as `outer.inner`."""
    found = []
    for column in schema:
        found.append(f"{before}{column.name}")
        if pa.types.is_struct(column.type):
            found += _names_in(column.type, f"{before}{column.name}.")
    return found
