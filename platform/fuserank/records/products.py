"""A shop's product rows → clean product records, sorted by id. Reads table files through `mapping`, writes nothing.

A row without an id or with an id that came before is set aside; a value that cannot be understood is set aside alone
and its product stays.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from fuserank.errors import ConfigError, EmptyCatalogueError
from fuserank.files import Folder
from fuserank.records import fields, money
from fuserank.records.mapping import ColumnMap, joined, read_rows
from fuserank.records.media import paths_for
from fuserank.records.quarantine import ROW, Quarantine
from fuserank.records.rows import RawRow
from fuserank.records.schema import PRODUCT

FIELDS = tuple(name for name in PRODUCT.names if name not in ("labels", "split", "price_max", "variant_ids"))
CHUNK = 8192  # rows held as Python objects at a time

STAGED = pa.schema(
    [
        *(
            # Of a million long texts one column has more than 2 GiB, which only large strings can be sorted with.
            field.with_type(pa.large_string()) if field.name in ("title", "description") else field
            for field in PRODUCT
            if field.name not in ("images", "audio")
        ),
        ("image_paths", pa.list_(pa.string())),
        ("audio_path", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
    ]
)
"""PRODUCT before its media have been read: where they lie, and where the row came from."""

_TYPED: dict[str, Callable[[Any], Any]] = {
    "in_stock": fields.flag,
    "rating": fields.rating,
    "review_count": fields.count,
    "updated_at": fields.moment,
}


def read_products(
    root: Folder | Path,
    files: list[str],
    columns: ColumnMap,
    quarantine: Quarantine,
    split_key: str | None = None,
    split: Callable[[str], str] | None = None,
    keep: Callable[[bytes], str] | None = None,
) -> pa.Table:
    """All products of a catalogue.

    Args:
        split_key: the field whose raw text decides a product's split (the id where it is empty).
        split: that text → split name; None where the split is not by product.
        keep: puts the bytes of a picture or sound that stands in a column somewhere, and says where (its path).

    Returns:
        STAGED, sorted by product_id, ids unique.

    Raises:
        InputError: missing files or columns.
        ConfigError: no such split field.
        EmptyCatalogueError: no usable row.
    """
    if split is not None and split_key not in FIELDS:
        raise ConfigError(f"records.split.key: products have no field `{split_key}`.", f"Fields: {', '.join(FIELDS)}.")
    first: dict[str, tuple[str, int]] = {}
    chunks: list[pa.RecordBatch] = []
    waiting: list[dict[str, Any]] = []
    for row, mapped, raw in read_rows(root, files, columns, quarantine):
        product_id = fields.identifier(joined(mapped.get("product_id")))
        if product_id is None:
            quarantine.add(row.source, row.position, ROW, "missing product_id")
            continue
        if product_id in first:
            detail = f"first in {first[product_id][0]} row {first[product_id][1]}"
            quarantine.add(row.source, row.position, ROW, "duplicate product_id", detail, product_id)
            continue
        pairs = _typed("attributes", fields.attributes, mapped.get("attributes"), product_id, quarantine, row, columns)
        product = _clean(paths_for(mapped, ("images", "audio"), keep), pairs or [], columns)
        for field, parse in _TYPED.items():
            product[field] = _typed(field, parse, joined(mapped.get(field)), product_id, quarantine, row, columns)
        parse = partial(money.price_range, decimal=columns.decimal)
        ends = _typed("price", parse, mapped.get("price"), product_id, quarantine, row, columns)
        low, high = ends or (None, None)
        product["price"], product["price_max"] = low, high if high != low else None
        product["product_id"], product["source"], product["position"] = product_id, row.source, row.position
        labels = {name: fields.identifier(raw.get(name)) for name in columns.labels}
        product["labels"] = [(name, value) for name, value in labels.items() if value is not None]
        if split is not None and split_key is not None:
            key = joined(mapped.get(split_key))
            product["split"] = split(product_id if fields.is_empty(key) else fields.plain(key))
        first[product_id] = row.source, row.position
        waiting.append(product)
        if len(waiting) == CHUNK:
            chunks.append(_batch(waiting))
            waiting.clear()
    if not first:
        raise EmptyCatalogueError(
            f"no usable product in {', '.join(files)} below records.root {root} "
            f"({quarantine.rows_in} rows read, {quarantine.counts() or 'none set aside'}).",
            "Check records.products.files and that records.products.map.product_id names the id column.",
        )
    return pa.Table.from_batches([*chunks, _batch(waiting)], STAGED).sort_by("product_id").combine_chunks()


def _batch(products: list[dict[str, Any]]) -> pa.RecordBatch:
    """Rows as columns: a tenth of the memory."""
    return pa.RecordBatch.from_arrays(
        [pa.array([p.get(f.name) for p in products], f.type) for f in STAGED], schema=STAGED
    )


def _clean(mapped: Mapping[str, Any], pairs: list[tuple[str, Any]], columns: ColumnMap) -> dict[str, Any]:
    texts = (
        (fields.text(name), fields.text(joined(one)))
        for name, value in pairs
        for one in (value if isinstance(value, tuple) else (value,))  # several values: the name repeats
    )
    levels = columns.items("category", mapped)
    if columns.path_separator is not None:  # several paths may share their upper levels
        levels = list(dict.fromkeys(level for path in levels for level in path.split(columns.path_separator)))
    category = (fields.text(level) for level in levels)
    return {
        "parent_id": fields.identifier(joined(mapped.get("parent_id"))),
        "title": fields.text(joined(mapped.get("title"))),
        "description": fields.text(joined(mapped.get("description"))),
        "currency": fields.identifier(joined(mapped.get("currency"))) or money.currency(joined(mapped.get("price"))),
        "brand": fields.text(joined(mapped.get("brand"))),
        "category": [part for part in category if part],
        "attributes": [(name, value) for name, value in texts if name and value],
        "image_paths": columns.items("images", mapped),
        "audio_path": fields.identifier(joined(mapped.get("audio"))),
    }


def _typed(
    field: str,
    parse: Callable[[Any], Any],
    value: Any,
    product_id: str,
    quarantine: Quarantine,
    row: RawRow,
    columns: ColumnMap,
) -> Any:
    try:
        found = parse(value)
        return (
            tuple(columns.scaled(field, one) for one in found)
            if isinstance(found, tuple)
            else columns.scaled(field, found)
        )
    except (ValueError, TypeError, OverflowError):
        quarantine.add(row.source, row.position, field, f"bad {field}", value, product_id)
        return None
