"""LexicalIndex against an independent BM25 in numpy, filtered exactly, Chinese included."""

import math
from collections import Counter

import numpy as np
import pytest

from fuserank.errors import StageError
from fuserank.retrieval.analysis import terms
from fuserank.retrieval.lexical import LexicalIndex

WORDS = ["red", "blue", "wool", "shirt", "trouser", "boot", "summer", "men", "women", "classic", "linen", "stripe"]
K1, B = 1.2, 0.75


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = np.random.default_rng(3)
    weights = 1 / np.arange(1, len(WORDS) + 1)
    return [" ".join(random.choice(WORDS, size=random.integers(1, 12), p=weights / weights.sum())) for _ in range(3000)]


@pytest.fixture(scope="module")
def index(texts, tmp_path_factory) -> LexicalIndex:
    folder = tmp_path_factory.mktemp("lexical") / "lexical"
    LexicalIndex.build(texts, folder)
    return LexicalIndex.open(folder)


def bm25(query: str, texts: list[str]) -> np.ndarray:
    """Straight from the formula, on whitespace words (no text here is longer than 40, where tantivy rounds)."""
    documents = [text.split() for text in texts]
    average = sum(map(len, documents)) / len(documents)
    scores = np.zeros(len(documents))
    for word in query.split():
        containing = sum(word in document for document in documents)
        idf = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
        for row, document in enumerate(documents):
            count = Counter(document)[word]
            scores[row] += idf * count * (K1 + 1) / (count + K1 * (1 - B + B * len(document) / average))
    return scores


@pytest.mark.parametrize("query", ["red", "linen women", "wool boot stripe blue", "red red shirt"])
def test_scores_are_bm25(index, texts, query):
    expected = bm25(query, texts)
    rows, scores = index.search([query], len(texts))
    hits = rows[0] >= 0
    assert hits.sum() == (expected > 0).sum()
    np.testing.assert_allclose(scores[0][hits], expected[rows[0][hits]], rtol=1e-4)
    assert (scores[0][~hits] == 0).all()
    some = np.random.default_rng(4).choice(len(texts), 300, replace=False)
    np.testing.assert_allclose(index.score(query, some), expected[some], rtol=1e-4)
    many = np.arange(len(texts))[::-1]
    np.testing.assert_allclose(index.score(query, many), expected[many], rtol=1e-4)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 1.0])
def test_filtered_search_is_exact_and_full(index, texts, share):
    k, query = 40, "linen stripe"
    allowed = np.random.default_rng(5).random(len(texts)) < share
    expected = np.where(allowed, bm25(query, texts), 0)
    rows, scores = index.search([query], k, allowed)
    count = min(k, int((expected > 0).sum()))
    assert (rows[0] >= 0).sum() == count
    assert allowed[rows[0][:count]].all()
    np.testing.assert_allclose(scores[0][:count], -np.sort(-expected)[:count], rtol=1e-4)


def test_wide_filter_that_avoids_the_best_hits(index, texts):
    """The list has to grow: every product that holds the rarest word twice is forbidden."""
    allowed = np.array([text.split().count("stripe") == 1 for text in texts]) | (np.arange(len(texts)) % 2 == 0)
    expected = np.where(allowed, bm25("stripe", texts), 0)
    rows, _ = index.search(["stripe"], 500, allowed)
    assert (rows[0] >= 0).sum() == min(500, int((expected > 0).sum()))


def test_equal_scores_stand_in_row_order(tmp_path):
    index = LexicalIndex.build(["blue shirt"] * 50 + ["red shirt"] * 50, tmp_path / "lexical")
    assert index.search(["red"], 20)[0][0].tolist() == list(range(50, 70))


def test_queries_without_words_or_with_hostile_ones(index):
    hostile = ["", "  ", "!!! ???", '"red', "red AND (", "title:red*", "a" * 100_000, "red " * 50_000, "\ud800x"]
    rows, _ = index.search(hostile, 5)
    assert (rows[:3] == -1).all()
    assert (rows[3] >= 0).all()
    assert (rows[7] >= 0).all()
    assert index.score("", np.arange(3)).tolist() == [0, 0, 0]


def test_chinese_is_found_by_parts_of_a_run(tmp_path):
    texts = ["红色连衣裙 夏季新款", "蓝色牛仔裤", "红色牛仔裤 iPhone15", "black dress"]
    index = LexicalIndex.build(texts, tmp_path / "lexical")
    rows, _ = index.search(["连衣裙", "牛仔裤", "红色牛仔裤", "iphone15"], 4)
    assert rows[0][0] == 0
    assert set(rows[1][:2]) == {1, 2}
    assert rows[2][0] == 2
    assert rows[3].tolist() == [2, -1, -1, -1]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("t-shirts", "Blue Tshirt"),
        ("tshirt", "Blue T-Shirts"),
        ("t shirt", "tshirts"),
        ("dresses", "Red Dress"),
        ("watch", "Watches"),
        ("tie", "Silk Ties"),
        ("babies", "Baby socks"),
        ("CAFÉ", "cafe racer"),
        ("ｓｈｏｅ", "shoes"),
        ("women's", "Womens"),
        ("2 4ghz", "2.4GHz"),
    ],
)
def test_words_meet(query, text):
    assert set(terms(query)) & set(terms(text)) - {"t", "s", "2"}


def test_empty_catalogue_and_missing_folder(tmp_path):
    empty = LexicalIndex.build([], tmp_path / "lexical")
    assert (empty.search(["red"], 3)[0] == -1).all()
    with pytest.raises(StageError, match="lexical index"):
        LexicalIndex.open(tmp_path / "nothing")
