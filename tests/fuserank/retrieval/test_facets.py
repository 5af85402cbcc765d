"""Counts, orders and groups of a live catalogue's products against plain loops over the same records."""

import math
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fuserank.errors import FilterError, InputError
from fuserank.records.schema import PRODUCT
from fuserank.retrieval.arrange import group_codes, grouped, sorted_places
from fuserank.retrieval.delta_records import DeltaRecords
from fuserank.retrieval.facets import facet, refuse_unknown, relaxed
from fuserank.retrieval.values import Numbers, Texts

N = 300


def record(random: np.random.Generator, row: int) -> dict[str, Any]:
    def maybe(value: Any, share: float = 0.85) -> Any:
        return value if random.random() < share else None

    price = maybe(Decimal(int(random.integers(100, 20_000))) / 100)
    wide = price is not None and random.random() < 0.2
    return dict.fromkeys(PRODUCT.names) | {
        "product_id": f"p{row}",
        "parent_id": maybe(f"f{random.integers(40)}", 0.6),
        "price": price,
        "price_max": price + 30 if wide else None,  # type: ignore[operator]
        "brand": maybe(f"b{random.integers(70)}"),
        "category": ["Shop", *(["Shop"] if row % 9 == 0 else []), f"c{random.integers(4)}"],
        "attributes": [("size", str(random.integers(5))), ("size", str(random.integers(5)))] if row % 4 else None,
        "in_stock": maybe(bool(random.integers(2))),
        "rating": maybe(float(random.integers(1, 6))),
        "review_count": maybe(int(random.integers(50))),
        "updated_at": maybe(datetime(2026, 1, int(random.integers(1, 29)), tzinfo=UTC)),
    }


@pytest.fixture(scope="module", params=["base", "changed", "compacted"])
def shop(request: pytest.FixtureRequest) -> tuple[DeltaRecords, list[dict[str, Any] | None]]:
    """Records by row, in a table that has been changed and the changes made a base again."""
    random = np.random.default_rng(2)
    records: list[dict[str, Any] | None] = [record(random, row) for row in range(N)]
    live = DeltaRecords(pa.Table.from_pylist(records, PRODUCT))
    if request.param == "base":
        return live, records
    live.grow(30)
    records += [None] * 30
    for row in [*range(0, N, 3), *range(N, N + 30)]:
        new = record(random, row) | ({"attributes": [("glow", "yes")]} if row % 2 else {})
        live.put({row: new})
        records[row] = new
    for row in range(1, N, 7):
        live.drop(row)
        records[row] = None
    if request.param == "compacted":
        live.install(live.snapshot()())
    return live, records


@pytest.fixture
def chosen(shop: Any) -> tuple[DeltaRecords, np.ndarray, list[dict[str, Any]]]:
    """Some of the products, in no order."""
    live, records = shop
    rows = np.random.default_rng(3).permutation([row for row, found in enumerate(records) if found])[:200]
    return live, rows, [records[row] for row in rows.tolist()]


def held(product: dict[str, Any], field: str) -> set[Any]:
    if field.startswith("attributes."):
        return {value for name, value in product["attributes"] or [] if name == field.removeprefix("attributes.")}
    value = product[field]
    return set(value) if isinstance(value, list) else {value} - {None}


@pytest.mark.parametrize("field", ["brand", "category", "in_stock", "attributes.size", "attributes.glow"])
def test_values_are_counted(chosen: Any, field: str):
    live, rows, products = chosen
    if field == "attributes.glow" and "attributes.glow" not in live.fields():
        with pytest.raises(InputError, match="glow"):
            refuse_unknown([field], live)
        return
    refuse_unknown([field], live)
    expected = Counter(value for product in products for value in held(product, field))
    ranked = sorted(expected.items(), key=lambda item: (-item[1], str(item[0])))
    found = facet(live.values(field, rows))
    assert [(item["value"], item["count"]) for item in found["values"]] == ranked[:50]
    assert found["other"] == sum(count for _, count in ranked[50:])
    assert all(type(item["value"]) is (bool if field == "in_stock" else str) for item in found["values"])


@pytest.mark.parametrize("field", ["price", "rating", "review_count"])
def test_ranges_count_what_the_filter_finds(chosen: Any, field: str):
    live, rows, products = chosen
    found = facet(live.values(field, rows))
    values = [float(p[field]) for p in products if p[field] is not None]
    highest = [float(p["price_max"] or p["price"]) for p in products if p["price"] is not None]
    assert (found["min"], found["max"]) == (min(values), max(highest if field == "price" else values))
    assert 3 <= len(found["ranges"]) <= 5
    assert (found["ranges"][0]["from"], found["ranges"][-1]["to"]) == (None, None)
    assert [r["to"] for r in found["ranges"][:-1]] == [r["from"] for r in found["ranges"][1:]]
    for item in found["ranges"]:
        bounds = {op: item[end] for op, end in (("gte", "from"), ("lt", "to")) if item[end] is not None}
        assert item["count"] == int(live.mask({field: bounds})[rows].sum())


def test_nothing_to_count():
    assert facet(Numbers(np.full(2, np.nan), np.full(2, np.nan))) == {"min": None, "max": None, "ranges": []}
    same = facet(Numbers(np.full(2, 5.0), np.full(2, 5.0)))
    assert same == {"min": 5.0, "max": 5.0, "ranges": [{"from": None, "to": None, "count": 2}]}
    none = np.zeros(0, np.int64)
    assert facet(Texts(3, none, none, ["a"])) == {"values": [], "other": 0}


def test_unknown_fields_are_refused_with_what_there_is(chosen: Any):
    live, _, _ = chosen
    with pytest.raises(InputError, match=r"'brnad'.*`brand`.*attributes\.size"):
        refuse_unknown(["price", "brnad"], live)
    for field in ("product_id", "labels", "attributes", "attributes.nope", ""):
        with pytest.raises(InputError):
            refuse_unknown([field], live)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, None),
        ({"brand": "a"}, None),
        ({"brand": "a", "price": {"lte": 3}}, {"price": {"lte": 3}}),
        ({"and": [{"brand": "a"}]}, None),
        (
            {"and": [{"brand": "a"}, {"price": {"lte": 3}}, {"and": [{"brand": ["b"]}]}]},
            {"and": [{"price": {"lte": 3}}]},
        ),
        ({"or": [{"brand": "a"}, {"price": 1}]}, {"or": [{"brand": "a"}, {"price": 1}]}),
        ({"not": {"brand": "a"}}, {"not": {"brand": "a"}}),
    ],
)
def test_a_field_s_own_conditions_are_taken_out(condition: Any, expected: Any):
    assert relaxed(condition, "brand") == expected


@pytest.mark.parametrize(
    "keys", [[("price", False)], [("price", True)], [("rating", True), ("review_count", False)], [("updated_at", True)]]
)
def test_sorted_with_missing_last_and_ties_by_relevance(chosen: Any, keys: list[tuple[str, bool]]):
    live, rows, products = chosen
    relevance = np.random.default_rng(4).integers(5, size=len(rows)).astype(np.float32)

    def key(i: int) -> tuple:
        parts: list[float] = []
        for name, descending in keys:
            value = products[i][name]
            value = value.timestamp() if isinstance(value, datetime) else value
            parts.append(math.inf if value is None else float(value) * (-1 if descending else 1))
        return (*parts, -relevance[i], rows[i])

    assert sorted_places(keys, live, rows, relevance).tolist() == sorted(range(len(rows)), key=key)
    with pytest.raises(FilterError, match="brand"):
        sorted_places([("brand", True)], live, rows, relevance)


def test_groups_stand_where_their_best_stands(chosen: Any):
    live, rows, products = chosen
    order = np.random.default_rng(5).permutation(len(rows))[:150]
    expected: dict[Any, list[int]] = {}
    for i in order.tolist():
        expected.setdefault(products[i]["parent_id"] or i, []).append(i)
    codes = group_codes("parent_id", live, rows)
    assert [members.tolist() for members in grouped(order, codes)] == list(expected.values())
    assert grouped(order[:0], codes) == []
