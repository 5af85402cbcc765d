"""BM25 of texts outside of the index equals what tantivy says of the same texts inside."""

from pathlib import Path

import numpy as np
import pytest

from fuserank.retrieval.lexical import LexicalIndex

WORDS = [f"word{n}" for n in range(60)]


def texts(count: int) -> list[str]:
    """Of 0 to 400 words, the first ones the most frequent."""
    draw = np.random.default_rng(0)
    chances = 1 / np.arange(1, 61)
    return [" ".join(draw.choice(WORDS, draw.integers(0, 400), p=chances / chances.sum())) for _ in range(count)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> LexicalIndex:
    return LexicalIndex.build(texts(200), tmp_path_factory.mktemp("words"))


@pytest.mark.parametrize("query", ["word0", "word59 word3", "word1 word1 word2", "nothing", "", "Word5, WORD40!"])
def test_texts_score_as_if_they_were_indexed(index: LexicalIndex, query: str):
    inside = texts(200)
    expected = index.score(query, np.arange(200))
    assert index.score_texts(query, inside) == pytest.approx(expected, rel=1e-5)
    assert index.score_texts(query, []).shape == (0,)
    if query == "word0":
        assert len(np.unique(expected)) > 50


def test_a_typo_is_read_as_the_index_reads_it(tmp_path: Path):
    index = LexicalIndex.build(["leather boots", "rubber boots", "sandals"], tmp_path, typos=True)
    expected = index.score("lether boots", np.arange(3))
    assert expected[0] > expected[1] > 0
    assert index.score_texts("lether boots", ["leather boots", "rubber boots", "x"]) == pytest.approx(expected)
