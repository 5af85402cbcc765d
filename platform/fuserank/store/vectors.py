"""Vectors of changed products, once for each generation. Reads and writes DELTA_VECTORS.

Whoever encodes a change writes its row, also for a change that left the vectors as they were (a row without bytes): a
change without a row has not been looked at yet.
"""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from fuserank.store.changes import StoredVectors
from fuserank.store.tables import CHANGES, DELTA_VECTORS
from fuserank.store.writer import GroupWriter


def add(writer: GroupWriter, generation: str, rows: Mapping[int, tuple[str, StoredVectors | None]]) -> None:
    """Store what `generation` makes of changes: seq → (product_id, vectors or None for "as before")."""
    found = [
        {
            "generation": generation,
            "seq": seq,
            "product_id": product_id,
            "modalities": vectors and vectors.modalities,
            "mask": vectors and vectors.mask,
            "fused": vectors and vectors.fused,
        }
        for seq, (product_id, vectors) in rows.items()
    ]
    writer.insert(DELTA_VECTORS, found)


def unencoded(connection: sa.Connection, generation: str, after: int) -> int | None:
    """The first change above `after` that the generation has not looked at, None if there is none."""
    seen = sa.select(DELTA_VECTORS.c.seq).where(
        DELTA_VECTORS.c.generation == generation, DELTA_VECTORS.c.seq == CHANGES.c.seq
    )
    query = sa.select(sa.func.min(CHANGES.c.seq)).where(CHANGES.c.seq > after, CHANGES.c.kind != "delete")
    return connection.execute(query.where(~seen.exists())).scalar_one()


def latest(
    connection: sa.Connection, generation: str, product_ids: Sequence[str], before: int
) -> dict[str, StoredVectors]:
    """The vectors each product had before the change of that number, where a change gave it any."""
    newest = (
        sa.select(DELTA_VECTORS.c.product_id, sa.func.max(DELTA_VECTORS.c.seq).label("seq"))
        .where(
            DELTA_VECTORS.c.generation == generation,
            DELTA_VECTORS.c.product_id.in_(product_ids),
            DELTA_VECTORS.c.seq < before,
            DELTA_VECTORS.c.fused.is_not(None),
        )
        .group_by(DELTA_VECTORS.c.product_id)
        .subquery()
    )
    columns = [DELTA_VECTORS.c[name] for name in ("product_id", "modalities", "mask", "fused")]
    query = sa.select(*columns).join(
        newest, sa.and_(DELTA_VECTORS.c.seq == newest.c.seq, DELTA_VECTORS.c.generation == generation)
    )
    return {product_id: StoredVectors(*parts) for product_id, *parts in connection.execute(query)}
