"""Prices as shops of many countries write them, looked up by hand."""

from decimal import Decimal

import pytest

from fuserank.records import money


@pytest.mark.parametrize(
    ("written", "amount"),
    [
        ("1.299 €", "1299"), ("EUR 1.299", "1299"), ("1.299", "1.299"), ("0,999 €", "0.999"), ("€ 0.125", "0.125"),
        ("1\u202f299,00 €", "1299"), ("1\u2009299,00 kr", "1299"), ("1\u00a0299", "1299"), ("1’299.00", "1299"),
        ("CHF 12.-", "12"), ("12,- €", "12"), ("12.–", "12"), ("1.299,00 kr.", "1299"), ("Fr. 12.50", "12.5"),
        ("Rs. 1,299", "1299"), ("₹1,29,999", "129999"), ("₹ 12,34,567.50", "1234567.5"), ("１，２００円", "1200"),
        ("US$ 5", "5"), ("R$ 1.299,00", "1299"), ("12.99 EUR", "12.99"), ("1.234.567,89", "1234567.89"), (7, "7"),
    ],
)  # fmt: skip
def test_amounts(written: object, amount: str) -> None:
    assert money.price(written) == Decimal(amount)


@pytest.mark.parametrize(
    "written",
    [
        "12 99 €",
        "10 20",
        "5'10",
        "\u22125",
        "($5.00)",
        "2024-01",
        "2024-01-05",
        "1.2.3",
        "12,34,56",
        [10, 20],
        {"a": 1},
    ],
)
def test_what_is_no_price_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="price"):
        money.price(written)


def test_the_configured_mark_decides() -> None:
    assert money.price("1.299", ",") == Decimal("1299")
    assert money.price("1,299", ".") == Decimal("1299")
    assert money.price("1,299", ",") == Decimal("1.299")
    assert money.price("1.299,5 €", ",") == Decimal("1299.5")
    assert money.price_range("1,5 - 2,5", ",") == (Decimal("1.5"), Decimal("2.5"))


def test_ranges_and_lists() -> None:
    assert money.price_range([10, 20, None]) == (Decimal(10), Decimal(20))
    assert money.price_range("€1.299 – €2.499") == (Decimal(1299), Decimal(2499))
    assert money.price_range("ab 5 bis 7") == (Decimal(5), Decimal(7))
    assert money.price_range([]) is None
    for wrong in ("2024-01", "-5", "5 - 6 - 7"):
        with pytest.raises(ValueError, match="price"):
            money.price_range(wrong)


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("R$ 1.299,00", "BRL"), ("$5", "USD"), ("US$5", "USD"), ("DKK 5 kr", "DKK"), ("5 kr", "SEK"), ("12 CAD", "CAD"),
        ("usd", None), ("5", None), ("EUR", "EUR"), ("XTS", "XTS"),
    ],
)  # fmt: skip
def test_currency(written: str, code: str | None) -> None:
    assert money.currency(written) == code
