"""Marks stand where the word index matched, in text that is safe to show."""

import html
import random
import re

import pytest

from fuserank.retrieval.analysis import located, terms
from fuserank.retrieval.highlight import SNIPPET, marked, snippet


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("shirts", "Red shirt, blue shirts", "Red <mark>shirt</mark>, blue <mark>shirts</mark>"),
        ("cafe", "Café & bar", "<mark>Café</mark> &amp; bar"),
        ("cafe", "Cafe\u0301!", "<mark>Cafe\u0301</mark>!"),
        ("woman", "<b>Woman's</b>", "&lt;b&gt;<mark>Woman&#x27;s</mark>&lt;/b&gt;"),
        ("tshirt", "a T-Shirt x", "a <mark>T-Shirt</mark> x"),
        ("t-shirt", "a T-Shirt x", "a <mark>T-Shirt</mark> x"),
        ("fine", "ﬁne ｆｉｎｅ", "<mark>ﬁne</mark> <mark>ｆｉｎｅ</mark>"),
        ("连衣裙", "红色连衣裙 夏", "红色<mark>连衣裙</mark> 夏"),
        ("red shoe", "green hat", None),
        ("red", "", None),
    ],
)
def test_titles(query: str, text: str, expected: str | None):
    assert marked(text, set(terms(query))) == expected


def test_pieces_are_the_terms_wherever_they_stand():
    draw = random.Random(1)
    letters = "abszes -'’s tT éÉ e\u0301 ｓ ﬁ ΣΟσ İ ß 红色 靴 ガ カ\u3099 한 ह िं ½ …．·"
    for _ in range(2000):
        text = "".join(draw.choice(letters) for _ in range(draw.randrange(14)))
        found = located(text)
        assert [piece.term for piece in found] == terms(text)
        assert all(0 <= piece.start < piece.end <= len(text) for piece in found)


def test_snippets_are_short_safe_and_show_most_of_the_query():
    draw = random.Random(2)
    for _ in range(300):
        words = draw.choices(["alpha", "beta", "<i>", "gamma & co", "delta", "x" * 90, "连衣裙"], k=draw.randrange(120))
        text = " ".join(words)
        wanted = set(terms("beta delta"))
        found = snippet(text, wanted)
        if not wanted & set(terms(text[:2000])):
            assert found is None
            continue
        assert found is not None
        assert set(re.findall(r"<[^>]*>", found)) == {"<mark>", "</mark>"}
        plain = html.unescape(re.sub("</?mark>", "", found))
        assert len(plain) <= SNIPPET
        assert plain.strip("…") in text
        assert set(re.findall("<mark>(.*?)</mark>", found)) <= {"beta", "delta"}


def test_a_snippet_begins_before_the_place_where_the_words_stand_together():
    text = "red thing. " + "filler words here. " * 30 + "A red leather shoe for winter. " + "more words. " * 20
    found = snippet(text, {"red", "shoe", "leather"})
    assert found is not None
    assert "<mark>red</mark> <mark>leather</mark> <mark>shoe</mark>" in found
    assert found.startswith("…")
    assert found.endswith("…")
