"""Filters against a naive evaluator that looks at one product at a time, with exact decimals and missing fields."""

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.errors import FilterError
from fuserank.records.schema import PRODUCT
from fuserank.retrieval.filters import MAX_DEPTH, MAX_NODES, Filters

BRANDS, CATEGORIES = ["Acme", "Nord", "acme", "Öl & Co"], ["Shoes", "Boots", "Home", "Toys"]
AMOUNTS = [Decimal(text) for text in ("0.00", "0.07", "19.99", "20.00", "79.98", "79.99", "80.00", "9999999.99")]
ATTRIBUTES = {"material": ["wool", "linen"], "width": ["5", "5.0", "12.5", "wide"], "new": ["true", "False"]}


def product(random: np.random.Generator, row: int) -> dict:
    def maybe(value):
        return value if random.random() < 0.75 else None

    def pick(values):
        return values[random.integers(len(values))]

    return {
        "product_id": f"p{row}",
        "brand": maybe(pick(BRANDS)),
        "category": maybe([pick(CATEGORIES) for _ in range(random.integers(0, 4))]),
        "price": maybe(pick(AMOUNTS)),
        "in_stock": maybe(bool(random.random() < 0.5)),
        "rating": maybe(pick([3.0, 4.3, 4.5])),
        "review_count": maybe(int(random.integers(0, 5))),
        "attributes": maybe({name: pick(values) for name, values in ATTRIBUTES.items() if random.random() < 0.6}),
        "updated_at": maybe(datetime.datetime(2026, 1, int(random.integers(1, 28)))),
    }


def test_price_ranges_match_where_they_meet_the_condition() -> None:
    """Against the interval's own arithmetic: some price of [low, high] between the bounds."""
    random = np.random.default_rng(3)
    ends = [sorted(random.integers(100, 200, 2).tolist()) for _ in range(200)]
    rows = [
        {"product_id": f"p{i:03}", "price": Decimal(low), "price_max": Decimal(high) if high > low else None}
        for i, (low, high) in enumerate(ends)
    ]
    filters = Filters(pa.Table.from_pylist(rows, schema=PRODUCT))
    for low, high in np.sort(random.integers(100, 200, (50, 2)), 1).tolist():
        found = filters.mask({"price": {"gte": low, "lte": high}})
        wanted = [a <= high and b >= low for a, b in ends]
        assert found.tolist() == wanted
        assert filters.mask({"price": low}).tolist() == [a <= low <= b for a, b in ends]
        assert filters.mask({"price": {"gt": low}}).tolist() == [b > low for _, b in ends]
        assert filters.mask({"price": {"lt": low}}).tolist() == [a < low for a, _ in ends]


@pytest.fixture(scope="module")
def shop() -> tuple[list[dict], Filters]:
    random = np.random.default_rng(6)
    rows = [product(random, row) for row in range(400)]
    arrow = [{**row, "attributes": row["attributes"] and list(row["attributes"].items())} for row in rows]
    return rows, Filters(pa.Table.from_pylist(arrow, schema=PRODUCT))


def value_of(row: dict, field: str):
    if field.startswith("attributes."):
        return (row["attributes"] or {}).get(field.removeprefix("attributes."))
    return row[field]


def equal(field: str, have, want) -> bool:
    if field == "rating":
        return np.float32(have) == np.float32(want)
    if field == "price":
        return have == Decimal(str(want))
    if field == "updated_at":
        return have == datetime.datetime.fromisoformat(want)
    if field.startswith("attributes.") and isinstance(want, bool):
        return have.lower() == str(want).lower()
    if field.startswith("attributes.") and isinstance(want, int | float):
        return number(have) == want
    return have == want


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def compare(field: str, have, operator: str, bound) -> bool:
    if operator == "eq":
        return equal(field, have, bound)
    if field == "price":
        bound = Decimal(str(bound))
    elif field == "rating":
        have, bound = np.float32(have), np.float32(bound)
    elif field == "updated_at":
        bound = datetime.datetime.fromisoformat(bound)
    elif field.startswith("attributes."):
        have = number(have)
    operations = {"lt": have < bound, "lte": have <= bound, "gt": have > bound, "gte": have >= bound}
    return bool(operations[operator])


def naive(condition: dict, row: dict) -> bool:
    results = []
    for key, value in condition.items():
        if key == "not":
            results.append(not naive(value, row))
        elif key in ("and", "or"):
            results.append((all if key == "and" else any)([naive(part, row) for part in value]))
        else:
            have = value_of(row, key)
            if have is None:
                results.append(False)
            elif isinstance(value, dict):
                results.append(all(compare(key, have, operator, bound) for operator, bound in value.items()))
            else:
                wanted = value if isinstance(value, list) else [value]
                values = have if key == "category" else [have]
                results.append(any(equal(key, one, want) for one in values for want in wanted))
    return all(results)


def one_of(values) -> st.SearchStrategy:
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), max_size=3))


def bounds(values) -> st.SearchStrategy:
    return st.dictionaries(
        st.sampled_from(["lt", "lte", "gt", "gte", "eq"]), st.sampled_from(values), min_size=1, max_size=3
    )


PRICES = [0, 20, 80, 79.99, 79.985, "79.99", 0.07, -1, 1e12, 19.990001]
CONDITIONS = st.one_of(
    st.builds(lambda v: {"brand": v}, one_of([*BRANDS, "none"])),
    st.builds(lambda v: {"category": v}, one_of([*CATEGORIES, "none"])),
    st.builds(lambda v: {"price": v}, st.one_of(bounds(PRICES), one_of(PRICES))),
    st.builds(lambda v: {"in_stock": v}, st.booleans()),
    st.builds(lambda v: {"rating": v}, st.one_of(bounds([4, 4.3, 4.5]), one_of([4.3, 4.5]))),
    st.builds(lambda v: {"review_count": v}, bounds([0, 2, 2.5, 4])),
    st.builds(lambda v: {"attributes.material": v}, one_of(["wool", "linen", "x"])),
    st.builds(lambda v: {"attributes.width": v}, st.one_of(bounds([5, 12.5, 13]), one_of([5, "5", "wide"]))),
    st.builds(lambda v: {"attributes.new": v}, one_of([True, False])),
    st.builds(lambda v: {"updated_at": v}, bounds(["2026-01-10", "2026-01-20T00:00:00"])),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(lambda v: {"and": v}, st.lists(inner, max_size=3)),
        st.builds(lambda v: {"or": v}, st.lists(inner, max_size=3)),
        st.builds(lambda v: {"not": v}, inner),
        st.builds(lambda a, b: {**a, **b}, inner, inner),
    ),
    max_leaves=8,
)


def test_same_as_looking_at_every_product(shop):
    rows, filters = shop

    @given(condition=FILTERS)
    @settings(max_examples=300, deadline=None)
    def check(condition):
        assert filters.mask(condition).tolist() == [naive(condition, row) for row in rows]

    check()


def test_prices_are_exact_and_missing_ones_never_match(shop):
    rows, filters = shop
    below, above = filters.mask({"price": {"lt": 79.99}}), filters.mask({"price": {"gte": 79.99}})
    priced = np.array([row["price"] is not None for row in rows])
    assert not (below & above).any()
    assert ((below | above) == priced).all()
    assert (filters.mask({"not": {"price": {"lt": 79.99}}}) == ~below).all()


@pytest.mark.parametrize(
    ("condition", "message", "hint"),
    [
        ({"brnd": "x"}, "brnd", "brand"),
        ({"attributes.materiel": "wool"}, "materiel", "attributes.material"),
        ({"labels": "x"}, "labels", ""),
        ([], "object", ""),
        ({}, "object", ""),
        (None, "object", ""),
        ({"and": {}}, "list", ""),
        ({"and": [1]}, "object", ""),
        ({"not": [{"brand": "x"}]}, "object", ""),
        ({"price": {"below": 3}}, "price", "lte"),
        ({"price": {}}, "price", ""),
        ({"price": {"lt": None}}, "price", ""),
        ({"price": {"lt": float("nan")}}, "price", ""),
        ({"price": {"lt": "cheap"}}, "price", ""),
        ({"price": True}, "price", ""),
        ({"price": {"lt": [1]}}, "price", ""),
        ({"in_stock": "yes"}, "in_stock", ""),
        ({"in_stock": 1}, "in_stock", ""),
        ({"brand": 5}, "brand", ""),
        ({"brand": None}, "brand", ""),
        ({"brand": {"lt": "a"}}, "brand", ""),
        ({"brand": ["x"] * 1001}, "brand", ""),
        ({"rating": {"gt": "4"}}, "rating", ""),
        ({"rating": {"gt": True}}, "rating", ""),
        ({"updated_at": {"gt": "soon"}}, "updated_at", "2026"),
    ],
)
def test_bad_filters_name_field_and_remedy(shop, condition, message, hint):
    with pytest.raises(FilterError) as error:
        shop[1].mask(condition)
    assert message in error.value.message
    assert hint in error.value.hint


HUGE = [1e308, float("inf"), 10**400, -(10**400), 1e-300, float("-inf")]


@pytest.mark.parametrize(
    ("field", "bound"),
    [(field, bound) for field in ("price", "rating", "review_count") for bound in HUGE]
    + [("price", "1e999"), ("price", "9" * 90), ("price", "-0.0000000000000000000000000000000000001")],
)
def test_extreme_bounds(shop, field, bound):
    rows, filters = shop
    have = np.array([row[field] is not None for row in rows])
    wanted = np.array([row[field] is not None and Decimal(str(row[field])) < Decimal(str(bound)) for row in rows])
    assert (filters.mask({field: {"lt": bound}}) == wanted).all()
    assert (filters.mask({field: {"gte": bound}}) == (have & ~wanted)).all()


def test_depth_and_size_are_limited(shop):
    deep = {"brand": "Acme"}
    for _ in range(MAX_DEPTH - 2):
        deep = {"not": deep}
    shop[1].mask(deep)
    for _ in range(5000):
        deep = {"not": deep}
    with pytest.raises(FilterError, match="deeper"):
        shop[1].mask(deep)
    with pytest.raises(FilterError, match="parts"):
        shop[1].mask({"or": [{"brand": "Acme"}] * MAX_NODES})


def test_no_products_at_all():
    filters = Filters(PRODUCT.empty_table())
    for condition in ({"price": {"lt": 3}}, {"category": "x"}, {"in_stock": True}, {"not": {"brand": "x"}}):
        assert filters.mask(condition).shape == (0,)
