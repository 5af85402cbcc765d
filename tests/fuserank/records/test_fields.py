"""Values of shops' tables → typed values."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuserank.records import fields, money


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("19.99", "19.99"), (19.99, "19.99"), (5, "5.00"), ("$1,299.00", "1299.00"), ("1.299,00 €", "1299.00"),
        ("12,50", "12.50"), ("1,299", "1299.00"), ("1,299,000", "1299000.00"), ("CHF 1'299.50", "1299.50"),
        (".5", "0.50"), ("0", "0.00"), (Decimal("3.10"), "3.10"), ("£ 7", "7.00"), ("1e3", "1000.00"),
    ],
)  # fmt: skip
def test_price(given_: object, wanted: str) -> None:
    assert money.price(given_) == Decimal(wanted)


@pytest.mark.parametrize("value", ["free", "-3", "nan", "inf", "1 to 2", "12 - 15", True, "1e30", "10.5.2024x", [1, 2]])
def test_bad_price(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        money.price(value)


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), []])
def test_empty_is_none(value: object) -> None:
    for parse in (
        money.price,
        fields.number,
        fields.count,
        fields.flag,
        fields.moment,
        fields.text,
        fields.identifier,
    ):
        assert parse(value) is None


def test_text() -> None:
    assert fields.text("<p>Soft &amp; <b>warm</b></p>\n<script>bad()</script>  wool") == "Soft & warm wool"
    assert fields.text("ﬁne\u00a0Ａ\u200b") == "fine A"
    assert fields.text("5 < 6 and 7 > 3") == "5 < 6 and 7 > 3"
    assert fields.text(42.0) == "42"
    assert fields.text("&lt;p&gt;Soft &amp;amp; warm&lt;/p&gt;") == "Soft & warm"
    assert fields.text("a <!-- x > y --> b <style>p > q {}</style> c <script>open") == "a b c open"


@pytest.mark.timeout(60)
def test_many_openings_without_an_end() -> None:
    """A pattern for both ends looks for the end from each opening: minutes."""
    assert fields.text("<script>" * 100_000 + "x") == "x"
    assert fields.text("<!--" * 100_000 + "x --> y") == "y"
    assert fields.text("a <script>" + "</script" * 100_000) == "a"
    assert fields.text("İ <STYLE a>b</Style > c") == "İ c"


def test_attributes_nested_too_deep_are_refused() -> None:
    with pytest.raises(ValueError, match="deep"):
        fields.attributes("[" * 100_000)


def test_moment() -> None:
    wanted = datetime(2024, 5, 1, 10, 0, 0, 250000)
    stamp = wanted.replace(tzinfo=UTC).timestamp()
    for value in (
        round(stamp * 1000),
        str(round(stamp * 1000)),
        "2024-05-01T10:00:00.250Z",
        "2024-05-01T12:00:00.250+02:00",
    ):
        assert fields.moment(value) == wanted
    assert fields.moment(int(stamp)) == wanted.replace(microsecond=0)
    with pytest.raises(ValueError, match="yesterday"):
        fields.moment("yesterday")


def test_items_and_flag() -> None:
    assert fields.items("Shoes| Boots ||", "|") == ["Shoes", "Boots"]
    assert fields.items(["a", None, 3], "|") == ["a", "3"]
    assert fields.flag("Yes") is True
    assert fields.flag(0) is False
    with pytest.raises(ValueError, match="maybe"):
        fields.flag("maybe")


anything = st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.booleans(), st.binary(), st.lists(st.text()))


@given(anything)
@settings(max_examples=500, deadline=None)
def test_parsers_understand_or_refuse(value: object) -> None:
    """No value of a cell ends a run: each parser returns, or raises one of the errors that set the value aside."""
    for parse in (money.price, fields.number, fields.count, fields.flag, fields.moment):
        try:
            parse(value)
        except (ValueError, TypeError, OverflowError):
            continue
    for found in (fields.text(value), fields.identifier(value)):
        assert found is None or found.encode("utf-8").decode() == found
