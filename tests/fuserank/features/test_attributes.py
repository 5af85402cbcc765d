"""Attribute values: which are known, how numbers are binned, what a product becomes, and that labels stay outside."""

import random
from typing import Any

import numpy as np
import pytest

from fuserank.features.attributes import AttributeVocabulary, pairs
from fuserank.features.featurizer import FeatureSettings, Featurizer

SHOES: list[dict[str, Any]] = [
    {
        "brand": "Acme",
        "category": ["Shoes", "Boots"],
        "attributes": [("Colour", "Red"), ("size", "38"), ("size", "39")],
    },
    {"brand": "ACME ", "category": ["Shoes"], "attributes": [("colour", " red"), ("size", "39"), ("code", "x-1")]},
    {"brand": "Nord", "category": ["Shoes", "Boots"], "attributes": {"colour": "blue", "code": "x-2"}},
    {"brand": None, "category": None, "attributes": [("colour", None)], "labels": [("colour", "blue")]},
]


def test_what_two_products_say_is_known_the_most_frequent_first() -> None:
    found = AttributeVocabulary.fit(SHOES, width=4)
    assert found.values == ("category=shoes", "brand=acme", "category=boots", "colour=red", "size=39")
    assert found.edges == {}  # two sizes are no scale
    assert AttributeVocabulary.fit(SHOES, size=2).values == ("category=shoes", "brand=acme")


def test_a_product_becomes_its_rarer_ids_padded() -> None:
    vocabulary = AttributeVocabulary.fit(SHOES, width=4)
    ids = vocabulary.ids(SHOES[0])
    assert ids is not None
    assert ids.dtype == np.int32
    assert ids.tolist() == [2, 3, 4, 5]  # of five, the commonest goes
    assert vocabulary.told(SHOES[0])[0] == "category=shoes"
    assert vocabulary.ids(SHOES[2]).tolist() == [1, 3, 0, 0]  # type: ignore[union-attr]
    assert vocabulary.ids({"brand": "Unheard of"}) is None


def test_nothing_and_labels_have_no_pairs() -> None:
    assert list(pairs(SHOES[3])) == []
    assert AttributeVocabulary.fit([SHOES[3]] * 5).values == ()
    assert AttributeVocabulary().ids(SHOES[0]) is None


def test_the_order_of_products_changes_nothing() -> None:
    draw = random.Random(0)
    rows = [{"attributes": [("a", str(draw.randrange(30))), ("b", draw.choice("xyz"))]} for _ in range(300)]
    first = AttributeVocabulary.fit(rows)
    draw.shuffle(rows)
    assert AttributeVocabulary.fit(rows) == first


def test_many_numbers_are_cut_into_equally_filled_bins() -> None:
    weights = np.random.default_rng(0).lognormal(1, 1, 800).round(3)
    rows = [{"attributes": [("weight", str(weight)), ("ports", str(n % 3))]} for n, weight in enumerate(weights)]
    rows += [{"attributes": [("weight", "unknown")]}] * 5
    found = AttributeVocabulary.fit(rows, bins=4)
    quartiles = np.quantile(weights, [0.25, 0.5, 0.75])
    assert found.edges.keys() == {"weight"}
    np.testing.assert_allclose(found.edges["weight"], quartiles, rtol=1e-5)
    assert {"ports=0", "ports=1", "ports=2", "weight=unknown"} < set(found.values)
    one, two, three = found.edges["weight"]
    names = {f"weight=≤{one:g}", f"weight=≤{two:g}", f"weight=≤{three:g}", f"weight=>{three:g}"}
    assert names == {value for value in found.values if value.startswith("weight=") and "unknown" not in value}
    for weight in (0.0, quartiles[0] - 0.01, quartiles[1] - 0.01, quartiles[2] + 0.01, 1e9):
        place = int((quartiles < weight).sum())
        expected = f"weight=≤{found.edges['weight'][place]:g}" if place < 3 else f"weight=>{three:g}"
        assert found.told({"attributes": [("weight", str(weight))]}) == [expected]
    counts = [sum(name in found.told(row) for row in rows) for name in sorted(names)]
    assert counts == pytest.approx([200] * 4, abs=2)


@pytest.mark.parametrize("words", [["nan", "inf", "1e999"], [f"{n} kg" for n in range(20)]])
def test_what_is_no_finite_number_is_a_word(words: list[str]) -> None:
    found = AttributeVocabulary.fit([{"attributes": [("x", word)]} for word in words for _ in range(2)], bins=2)
    assert found.edges == {}
    assert found.values == tuple(sorted(f"x={word}" for word in words))


def test_the_featurizer_keeps_its_vocabulary(tmp_path: Any) -> None:
    rows = [*SHOES, *({"attributes": [("weight", str(n / 7))]} for n in range(40))]
    settings = FeatureSettings(attributes=AttributeVocabulary.fit(rows, width=6, bins=3))
    featurizer = Featurizer.fit(["words"], [1.0, 2.0], settings)
    featurizer.save(tmp_path)
    loaded = Featurizer.load(tmp_path)
    assert loaded.settings == featurizer.settings
    assert loaded.settings.attributes.edges
    for row in rows:
        both = [f.attributes(row) for f in (loaded, featurizer)]
        assert all(ids is None for ids in both) or np.array_equal(*both)  # type: ignore[arg-type]
