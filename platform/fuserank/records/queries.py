"""A shop's queries and judgments → clean records. Reads table files through `mapping`, writes nothing."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuserank.errors import ConfigError
from fuserank.files import Folder
from fuserank.records import fields
from fuserank.records.mapping import ColumnMap, joined, read_rows
from fuserank.records.media import paths_for
from fuserank.records.quarantine import ROW, Quarantine
from fuserank.records.schema import JUDGMENT, QUERY

QUERY_FIELDS = ("query_id", "text", "image", "audio", "user_id", "group")
JUDGMENT_FIELDS = ("query_id", "product_id", "grade")

STAGED_QUERY = pa.schema([*QUERY, pa.field("source", pa.string(), nullable=False), ("position", pa.int64())])
"""QUERY whose image and audio are still paths in the shop's media, and where the row came from."""


def read_queries(
    root: Folder | Path,
    files: list[str],
    columns: ColumnMap,
    quarantine: Quarantine,
    split_key: str,
    split: Callable[[str], str],
    keep: Callable[[bytes], str] | None = None,
    groups: Mapping[str, str] | None = None,
) -> pa.Table:
    """All queries that ask something, sorted by id; rows that repeat one word for word count once.

    Args:
        split_key: the query field whose text decides the split (the id where it is empty).
        keep: puts the bytes of a picture or sound that stands in a column somewhere, and says where (its path).
        groups: group → split of all its queries, whatever their key says.

    Returns:
        STAGED_QUERY.

    Raises:
        InputError: missing files or columns. ConfigError: no such split field.
    """
    if split_key not in QUERY_FIELDS:
        raise ConfigError(
            f"records.split.key: queries have no field `{split_key}`.", f"Fields: {', '.join(QUERY_FIELDS)}."
        )
    found: dict[str, dict[str, Any]] = {}
    for row, mapped, _ in read_rows(root, files, columns, quarantine):
        mapped = paths_for(mapped, ("image", "audio"), keep)
        query = {name: fields.identifier(joined(mapped.get(name))) for name in QUERY_FIELDS}
        query_id = query["query_id"]
        query["text"] = fields.text(joined(mapped.get("text")))
        if query_id in found and all(found[query_id][name] == value for name, value in query.items()):
            quarantine.repeated += 1  # a table of judgments, read for its queries, has one row a judgment
            continue
        problem = (
            "missing query_id"
            if query_id is None
            else "duplicate query_id"
            if query_id in found
            else "empty query"
            if not (query["text"] or query["image"] or query["audio"])
            else None
        )
        if query_id is None or problem is not None:
            quarantine.add(row.source, row.position, ROW, problem or "", query_id)
            continue
        by_key = split(query[split_key] or query_id)  # as cleaned: texts that read the same are on one side
        name = (groups or {}).get(query["group"] or "", by_key)
        found[query_id] = {**query, "split": name, "source": row.source, "position": row.position}
    return pa.Table.from_pylist([found[query_id] for query_id in sorted(found)], schema=STAGED_QUERY)


def read_judgments(
    root: Folder | Path,
    files: list[str],
    columns: ColumnMap,
    quarantine: Quarantine,
    queries: Collection[str],
    products: Mapping[str, str],
) -> pa.Table:
    """All judgments about known queries and products, sorted; a pair's first judgment counts, of variants the highest.

    Args:
        products: id in the file → product_id (variants.known_ids).

    Returns:
        JUDGMENT.
    """
    found: dict[tuple[str, str], float] = {}
    seen: set[tuple[str, str]] = set()
    for row, mapped, _ in read_rows(root, files, columns, quarantine):
        query_id = fields.identifier(joined(mapped.get("query_id")))
        product_id = fields.identifier(joined(mapped.get("product_id")))
        grade = None
        try:
            grade = columns.scaled("grade", fields.number(joined(mapped.get("grade"))))
        except (ValueError, TypeError):
            problem = "bad grade"
        else:
            problem = "bad grade" if grade is None or grade < 0 else None
        if query_id not in queries:
            problem = "unknown query"
        elif product_id not in products:
            problem = "unknown product"
        elif problem is None and (query_id, product_id) in seen:
            problem = "duplicate judgment"
        if problem is not None or query_id is None or product_id is None or grade is None:
            detail = f"{query_id} · {product_id} · {mapped.get('grade')}"
            quarantine.add(row.source, row.position, ROW, problem or "bad row", detail, product_id)
            continue
        seen.add((query_id, product_id))
        pair = query_id, products[product_id]
        quarantine.merged += pair in found
        found[pair] = max(grade, found.get(pair, 0.0))
    rows = [(*pair, found[pair]) for pair in sorted(found)]
    return pa.table([pa.array([row[i] for row in rows], f.type) for i, f in enumerate(JUDGMENT)], schema=JUDGMENT)
