"""Duplicates made one: products taken out of what `preprocess` has written, and everything said of them moved on.

Rewrites products.parquet and features/.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuserank.features.parts import drop_rows
from fuserank.records.schema import JUDGMENT, LINK, PRODUCT


def take_out(folder: Path, gone: Mapping[str, str]) -> None:
    """Remove the products; those that stand for them list them among their variants.

    Args:
        gone: product → the one that stands for it.
    """
    drop_rows(folder / "features", gone)
    products = pq.read_table(folder / "products.parquet")
    own = dict(zip(products["product_id"].to_pylist(), products["variant_ids"].to_pylist(), strict=True))
    products = without(products, gone)
    more: dict[str, list[str]] = {}
    for name, stands in gone.items():
        more.setdefault(stands, []).extend([name, *(own[name] or [])])
    ids, known = products["product_id"].to_pylist(), products["variant_ids"].to_pylist()
    variants = [
        sorted([*(old or []), *more[name]]) if name in more else old for name, old in zip(ids, known, strict=True)
    ]
    field = PRODUCT.field("variant_ids")
    products = products.set_column(PRODUCT.get_field_index("variant_ids"), field, [pa.array(variants, field.type)])
    pq.write_table(products, folder / "products.parquet", compression="ZSTD")


def without(table: pa.Table, gone: Mapping[str, str]) -> pa.Table:
    """The table without those products' rows."""
    return table.filter(pc.call_function("invert", [_among(table["product_id"], gone)]))


def followed(table: pa.Table, gone: Mapping[str, str], columns: Sequence[str] = ("product_id",)) -> pa.Table:
    """The same rows about the products that stand for the ones named."""
    for name in columns:
        place = table.schema.get_field_index(name)
        moved = [gone.get(value, value) for value in table[name].to_pylist()]
        table = table.set_column(place, table.schema.field(name), [pa.array(moved, pa.string())])
    return table


def followed_judgments(judged: pa.Table, gone: Mapping[str, str]) -> pa.Table:
    """JUDGMENT, of a pair that now stands twice the higher grade."""
    moved = followed(judged, gone).group_by(["query_id", "product_id"]).aggregate([("grade", "max")])
    moved = moved.rename_columns(list(JUDGMENT.names)).cast(JUDGMENT)
    return moved.sort_by([("query_id", "ascending"), ("product_id", "ascending")])


def followed_links(links: pa.Table, gone: Mapping[str, str]) -> pa.Table:
    """LINK, each once and none to itself."""
    moved = followed(links, gone, ("product_id", "linked_id")).group_by(list(LINK.names)).aggregate([])
    moved = moved.filter(pc.call_function("not_equal", [moved["product_id"], moved["linked_id"]]))
    return moved.cast(LINK).sort_by([("kind", "ascending"), ("product_id", "ascending"), ("linked_id", "ascending")])


def _among(ids: pa.ChunkedArray, gone: Mapping[str, str]) -> pa.ChunkedArray:
    return pc.call_function("is_in", [ids], pc.SetLookupOptions(pa.array(list(gone), pa.string())))
