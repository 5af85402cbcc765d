"""Variants of one article → one product that can be found by the size, colour or price of any of them.

Reads and writes nothing.
"""

from collections import defaultdict
from typing import Any

import pyarrow as pa

_OWN = ("title", "description", "brand", "currency", "audio_path", "rating", "review_count", "updated_at", "split")


def group_variants(staged: pa.Table) -> tuple[pa.Table, int]:
    """Products that share a parent_id become one, named by it.

    The row whose id is the parent_id says what the product is; where there is none, the first variant does. What it
    lacks comes from the first variant that has it; attributes, categories and pictures are everyone's, its own
    first; it is in stock where any variant is; price and price_max span the variants' prices.

    Args:
        staged: STAGED, sorted by product_id.

    Returns:
        STAGED, sorted by product_id, and how many rows were merged into another.
    """
    parents = staged["parent_id"].to_pylist()
    place = {identity: row for row, identity in enumerate(staged["product_id"].to_pylist())}
    members: dict[str, list[int]] = defaultdict(list)
    for row, parent in enumerate(parents):
        if parent is not None:
            members[_root(parent, parents, place)].append(row)
    for parent, rows in members.items():  # a parent row without a parent_id of its own belongs to its variants
        if parent in place and parents[place[parent]] is None:
            rows.append(place[parent])
    joined = {row for rows in members.values() for row in rows}
    alone = staged.filter(pa.array([row not in joined for row in range(staged.num_rows)], pa.bool_()))
    made = [_one(parent, staged.take(pa.array(sorted(rows))).to_pylist()) for parent, rows in members.items() if rows]
    columns = [pa.array([product[field.name] for product in made], field.type) for field in staged.schema]
    found = pa.concat_tables([alone, pa.table(columns, schema=staged.schema)]).sort_by("product_id").combine_chunks()
    return found, staged.num_rows - found.num_rows


def _root(parent: str, parents: list[str | None], place: dict[str, int]) -> str:
    """The parent's own topmost parent; a circle ends where it is met."""
    met = {parent}
    while (row := place.get(parent)) is not None and (above := parents[row]) is not None and above not in met:
        parent = above
        met.add(parent)
    return parent


def known_ids(products: pa.Table) -> dict[str, str]:
    """Every id that products are called by → the product's id: its own, and those of the variants it stands for."""
    ids = products["product_id"].to_pylist()
    found = dict(zip(ids, ids, strict=True))
    for product_id, variants in zip(ids, products["variant_ids"].to_pylist(), strict=True):
        for variant in variants or []:
            found.setdefault(variant, product_id)
    return found


def _one(parent: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    rows.sort(key=lambda row: row["product_id"] != parent)  # stable: the parent first, then by id
    product = dict(rows[0])
    for name in _OWN:
        product[name] = next((row[name] for row in rows if row[name] is not None), None)
    for name in ("attributes", "labels", "category", "image_paths"):
        product[name] = list(dict.fromkeys(value for row in rows for value in row[name] or []))
    known = [row["in_stock"] for row in rows if row["in_stock"] is not None]
    priced = [row for row in rows if row["price"] is not None]
    priced = [row for row in priced if row["currency"] in (None, product["currency"])]  # no other
    lows = [row["price"] for row in priced]
    highs = [row["price_max"] or row["price"] for row in priced]
    product["product_id"] = product["parent_id"] = parent
    product["in_stock"] = any(known) if known else None
    product["price"] = min(lows, default=None)
    product["price_max"] = max(highs) if highs and max(highs) > min(lows) else None
    product["variant_ids"] = sorted(row["product_id"] for row in rows if row["product_id"] != parent)
    return product
