"""Links between products (related, up-sell, cross-sell …) and reviews → records, judgments, events and ratings.

Reads table files through `mapping`, writes nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fuserank.files import Folder
from fuserank.records import fields
from fuserank.records.mapping import ColumnMap, joined, read_rows
from fuserank.records.quarantine import ROW, Quarantine
from fuserank.records.schema import EVENT, JUDGMENT, LINK, REVIEW

LINK_FIELDS = ("product_id", "linked_id")
REVIEW_FIELDS = ("product_id", "user_id", "rating", "title", "text", "timestamp")
LIKED, DISLIKED = 4.0, 2.0  # of five stars: from here up a `like`, down to here a `dislike`
_START = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)


def read_links(
    root: Folder | Path,
    files: list[str],
    columns: ColumnMap,
    kind: str,
    quarantine: Quarantine,
    products: Mapping[str, str],
) -> pa.Table:
    """Links of one kind. A row names a product and one or several that it leads to; unknown ones are set aside alone.

    Args:
        products: id in the file → product_id (variants.known_ids).

    Returns:
        LINK, sorted, each pair once.
    """
    found: set[tuple[str, str]] = set()
    for row, mapped, _ in read_rows(root, files, columns, quarantine):
        product_id = fields.identifier(joined(mapped.get("product_id")))
        if product_id not in products or product_id is None:
            quarantine.add(row.source, row.position, ROW, "unknown product", product_id, product_id)
            continue
        for linked in columns.items("linked_id", mapped):
            if linked in products and linked != product_id:
                pair = products[product_id], products[linked]
                found |= {pair} if pair[0] != pair[1] else set()  # variants of one product say nothing
            else:
                quarantine.add(row.source, row.position, "linked_id", "unknown product", linked, product_id)
    rows = sorted(found)
    return pa.table([[product for product, _ in rows], [kind] * len(rows), [linked for _, linked in rows]], schema=LINK)


def link_judgments(
    links: pa.Table, staged: pa.Table, grades: Mapping[str, float], split: Callable[[str], str], by_text: bool = False
) -> tuple[list[dict[str, Any]], pa.Table]:
    """Each product with links asks, by its title and main picture, for what it leads to.

    The product itself is the best answer to its own title, and gets the largest grade given.

    Args:
        staged: STAGED products. grades: kind of link → grade; other kinds are left out.
        by_text: the title decides the split, so that products of one title are on one side; else the query's id.

    Returns:
        Query rows (STAGED_QUERY columns, ids `like:<product_id>`), and JUDGMENT, sorted.
    """
    best: dict[str, dict[str, float]] = defaultdict(dict)
    for product_id, kind, linked in zip(*(links[name].to_pylist() for name in LINK.names), strict=True):
        if kind in grades:
            best[product_id][linked] = max(grades[kind], best[product_id].get(linked, 0.0))
    place = {identity: row for row, identity in enumerate(staged["product_id"].to_pylist())}
    asked, judged = [], []
    for product_id in sorted(best):
        product = staged.slice(place[product_id], 1).to_pylist()[0]
        image = next(iter(product["image_paths"] or []), None)
        if not (product["title"] or image):
            continue
        query_id = f"like:{product_id}"
        key = (product["title"] if by_text else None) or query_id
        asked.append(
            {"query_id": query_id, "text": product["title"], "image": image, "split": split(key), "group": "like"}
            | {"source": product["source"], "position": product["position"]}
        )
        answers = best[product_id] | {product_id: max(grades.values())}
        judged += [(query_id, linked, grade) for linked, grade in answers.items()]
    judged.sort()
    columns = [pa.array([row[i] for row in judged], f.type) for i, f in enumerate(JUDGMENT)]
    return asked, pa.table(columns, schema=JUDGMENT)


def read_reviews(
    root: Folder | Path, files: list[str], columns: ColumnMap, quarantine: Quarantine, products: Mapping[str, str]
) -> pa.Table:
    """Reviews of known products, in the files' order.

    Args:
        products: id in the file → product_id (variants.known_ids).

    Returns:
        REVIEW.
    """
    found: list[dict[str, Any]] = []
    for row, mapped, _ in read_rows(root, files, columns, quarantine):
        review: dict[str, Any] = {
            "product_id": fields.identifier(joined(mapped.get("product_id"))),
            "user_id": fields.identifier(joined(mapped.get("user_id"))),
            "title": fields.text(joined(mapped.get("title"))),
            "text": fields.text(joined(mapped.get("text"))),
        }
        try:
            review["rating"] = columns.scaled("rating", fields.number(joined(mapped.get("rating"))))
            review["timestamp"] = fields.moment(joined(mapped.get("timestamp")))
        except (ValueError, TypeError, OverflowError) as error:
            quarantine.add(row.source, row.position, ROW, "bad value", error, review["product_id"])
            continue
        if review["product_id"] not in products:
            quarantine.add(row.source, row.position, ROW, "unknown product", review["product_id"], review["product_id"])
            continue
        review["product_id"] = products[review["product_id"]]
        found.append(review | {"review_id": f"{row.source}:{row.position}"})
    return pa.Table.from_pylist(found, schema=REVIEW)


def rate(staged: pa.Table, reviews: pa.Table) -> pa.Table:
    """Products with the mean rating and the number of their reviews, where their own rows do not tell them."""
    means = reviews.group_by("product_id").aggregate([("rating", "mean"), ("rating", "count")])
    by_product = {row["product_id"]: row for row in means.to_pylist()}
    rows = [by_product.get(identity, {}) for identity in staged["product_id"].to_pylist()]
    for name, key in (("rating", "rating_mean"), ("review_count", "rating_count")):
        kind = staged.schema.field(name).type
        given = pa.chunked_array([pa.array([row.get(key) for row in rows]).cast(kind)])
        filled = pc.call_function("coalesce", [staged[name], given])
        staged = staged.set_column(staged.schema.get_field_index(name), staged.schema.field(name), filled)
    return staged


def review_events(reviews: pa.Table) -> pa.Table:
    """What reviewers did: a like, a dislike or, in between, a view. Without a time, the place in the file stands for
    it.

    Returns:
        EVENT, in time order; reviews without a reviewer are left out.
    """
    found = []
    for place, review in enumerate(reviews.to_pylist()):
        if review["user_id"] is None:
            continue
        rating = review["rating"]
        kind = "view" if rating is None else "like" if rating >= LIKED else "dislike" if rating <= DISLIKED else "view"
        moment = review["timestamp"] or _START + timedelta(milliseconds=place)
        found.append(
            {"event_id": f"review:{review['review_id']}", "type": kind, "user_id": review["user_id"]}
            | {"product_id": review["product_id"], "value": rating, "timestamp": moment}
        )
    found.sort(key=lambda event: event["timestamp"])
    return pa.Table.from_pylist(found, schema=EVENT)
