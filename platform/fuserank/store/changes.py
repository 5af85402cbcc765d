"""The change log: what was done to the catalogue since its files were imported. Reads and writes CHANGES and PRODUCTS.

Every change has a number (`seq`), without gaps and in the order of commits: who has read up to a number never misses a
smaller one. A change holds the whole product as it is afterwards, so that a reader needs nothing but the latest one.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from fuserank.records.live import Record, merge
from fuserank.store.tables import CHANGES, DELTA_VECTORS, PRODUCTS

Kind = Literal["upsert", "patch", "delete"]
KINDS: tuple[Kind, ...] = ("upsert", "patch", "delete")
LOG_LOCK = 7_236_341_807_116_441_202  # any constant: one writer of the log at a time on a PostgreSQL database
IDS_A_QUERY = 500


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be done to one product."""

    kind: Kind
    product_id: str
    values: Record = field(default_factory=dict)  # upsert: the record; patch: fields to set, None takes one away


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an edit: its number in the log, or why it was refused."""

    product_id: str
    seq: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """A changed product's vectors in one generation, as bytes."""

    modalities: bytes  # float16 [M, D]
    mask: bytes  # bool [M]
    fused: bytes  # float32 [E]


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log."""

    seq: int
    product_id: str
    kind: Kind
    record: Record | None  # the whole product afterwards; None once deleted
    encoded: bool = False  # the generation asked for knows this change's vectors
    vectors: StoredVectors | None = None  # None also where the change left them as they were
    timestamp: int = 0  # ms since 1970


def write(
    connection: sa.Connection, edits: Sequence[Edit], base: Callable[[str], Record | None], now: int
) -> list[Outcome]:
    """Append edits to the log, in order, and bring PRODUCTS up to date; within the transaction of the connection.

    Args:
        base: a product as it was imported, for products that no change has touched.
        now: ms since 1970.
    """
    if connection.dialect.name == "postgresql":  # numbers are given and committed by one transaction at a time
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOG_LOCK})
    seq = latest(connection)
    truth = dict(_truth(connection, [edit.product_id for edit in edits]))
    outcomes, rows = [], []
    for edit in edits:
        known = truth.get(edit.product_id)
        if edit.kind != "upsert" and edit.product_id not in truth:
            known = base(edit.product_id)
        if edit.kind != "upsert" and known is None:
            outcomes.append(Outcome(edit.product_id, reason="there is no product of this id"))
            continue
        record = None if edit.kind == "delete" else edit.values if edit.kind == "upsert" else merge(known, edit.values)
        seq += 1
        truth[edit.product_id] = record
        text = None if record is None else json.dumps(record, ensure_ascii=False, allow_nan=False)
        rows.append({"seq": seq, "product_id": edit.product_id, "kind": edit.kind, "record": text, "timestamp": now})
        outcomes.append(Outcome(edit.product_id, seq))
    if rows:
        connection.execute(sa.insert(CHANGES), rows)
        newest = {row["product_id"]: {name: row[name] for name in ("product_id", "seq", "record")} for row in rows}
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(PRODUCTS)
        statement = statement.on_conflict_do_update(
            index_elements=["product_id"], set_={name: statement.excluded[name] for name in ("seq", "record")}
        )
        connection.execute(statement, [newest[name] for name in sorted(newest)])
    return outcomes


def latest(connection: sa.Connection) -> int:
    """The number of the last change, 0 without any."""
    return connection.execute(sa.select(sa.func.coalesce(sa.func.max(CHANGES.c.seq), 0))).scalar_one()


def read(connection: sa.Connection, after: int, generation: str, limit: int) -> list[Change]:
    """Changes with numbers above `after`, in order, with what this generation knows of their vectors."""
    known = sa.and_(DELTA_VECTORS.c.generation == generation, DELTA_VECTORS.c.seq == CHANGES.c.seq)
    columns = [CHANGES.c[name] for name in ("seq", "product_id", "kind", "record", "timestamp")]
    columns += [DELTA_VECTORS.c.seq, *(DELTA_VECTORS.c[name] for name in ("modalities", "mask", "fused"))]
    joined = CHANGES.outerjoin(DELTA_VECTORS, known)
    query = sa.select(*columns).select_from(joined).where(CHANGES.c.seq > after).order_by(CHANGES.c.seq).limit(limit)
    return [
        Change(
            seq,
            product_id,
            kind,
            None if record is None else json.loads(record),
            encoded is not None,
            None if fused is None else StoredVectors(modalities, mask, fused),
            timestamp,
        )
        for seq, product_id, kind, record, timestamp, encoded, modalities, mask, fused in map(
            tuple, connection.execute(query)
        )
    ]


def before(connection: sa.Connection, changes: Sequence[Change]) -> dict[int, tuple[bool, Record | None]]:
    """seq of each change → whether an earlier change touched its product, and the record that one left."""
    found: dict[int, tuple[bool, Record | None]] = {}
    earlier = CHANGES.alias("earlier")
    for part in _parts([change.seq for change in changes]):
        last = (
            sa.select(sa.func.max(earlier.c.seq))
            .where(earlier.c.product_id == CHANGES.c.product_id, earlier.c.seq < CHANGES.c.seq)
            .scalar_subquery()
        )
        pairs = sa.select(CHANGES.c.seq, last.label("last")).where(CHANGES.c.seq.in_(part)).subquery()
        query = sa.select(pairs.c.seq, CHANGES.c.record).join(CHANGES, CHANGES.c.seq == pairs.c.last)
        for seq, record in connection.execute(query):
            found[seq] = (True, None if record is None else json.loads(record))
    return {change.seq: found.get(change.seq, (False, None)) for change in changes}


def products(connection: sa.Connection, product_ids: Sequence[str]) -> dict[str, Record | None]:
    """The products among these that were ever changed, as they are now; None where deleted."""
    return dict(_truth(connection, product_ids))


def _truth(connection: sa.Connection, product_ids: Sequence[str]) -> Iterator[tuple[str, Record | None]]:
    for part in _parts(sorted(set(product_ids))):
        query = sa.select(PRODUCTS.c.product_id, PRODUCTS.c.record).where(PRODUCTS.c.product_id.in_(part))
        for product_id, record in connection.execute(query):
            yield product_id, None if record is None else json.loads(record)


def _parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), IDS_A_QUERY):
        yield values[start : start + IDS_A_QUERY]
