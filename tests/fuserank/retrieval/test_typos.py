"""Misspelt words against a plain edit distance, over random words; corrections of texts; live changes count at once."""

import random

import numpy as np
import pytest

from fuserank.retrieval.delta_words import DeltaWords
from fuserank.retrieval.lexical import LexicalIndex
from fuserank.retrieval.typos import Vocabulary

TEXTS = [
    "leather jacket brown",
    "leather jacket black",
    "leathers wallet",
    "heather sweater",
    "transformer toy",
    "iphone15 case",
    "email album",
    "红色连衣裙",
    "sneaker shoe",
]


def edits(one: str, other: str) -> int:
    """Optimal string alignment, from its recurrence."""
    table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(other) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            ways = [table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (one[i - 1] != other[j - 1])]
            if i > 1 and j > 1 and one[i - 1] == other[j - 2] and one[i - 2] == other[j - 1]:
                ways.append(table[i - 2][j - 2] + 1)
            table[i][j] = min(ways)
    return table[-1][-1]


@pytest.mark.parametrize("most", [1, 2])
def test_near_words_are_those_of_the_plain_distance(most: int):
    draw = random.Random(most)
    words = ["".join(draw.choices("abcdé", k=draw.randint(3, 9))) for _ in range(600)]
    vocabulary = Vocabulary(words[:300])
    vocabulary.add(words[300:])
    for _ in range(60):
        word = "".join(draw.choices("abcdé", k=draw.randint(3, 9)))
        expected = {(other, edits(word, other)) for other in words if edits(word, other) <= most}
        found = vocabulary.near(word, most)
        assert len(found) == len(set(found))
        assert set(found) == expected


@pytest.fixture
def index(tmp_path) -> LexicalIndex:
    return LexicalIndex.build(TEXTS, tmp_path / "words", typos=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lether jackte", "leather jacket"),
        ("Brown LETHER, please", "Brown leather, please"),  # `please` is near nothing
        ("xeather", "leather"),  # heather is as near, leather is in more documents
        ("tranformres", "transformer"),  # two edits from eight letters on
        ("shooe", "shoe"),
        ("jakcte", "jakcte"),  # two edits in six letters
        ("sho", "sho"),  # too short
        ("iphone16", "iphone16"),  # a number is meant as it is written
        ("e mail", "e mail"),  # email is in the index
        ("红色连衣群", "红色连衣群"),
        ("leather jackets", "leather jackets"),
        ("leather’s", "leather’s"),
    ],
)
def test_texts_are_corrected_where_no_document_has_the_word(index, text: str, expected: str):
    assert index.corrected(text) == expected


def test_search_and_scores_are_those_of_the_corrected_text(index, tmp_path):
    plain = LexicalIndex.build(TEXTS, tmp_path / "plain")
    rows, scores = index.search(["lether jackte"], 9)
    expected, expected_scores = plain.search(["leather jacket"], 9)
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(scores, expected_scores)
    every = np.arange(9)
    np.testing.assert_array_equal(index.score("lether", every), plain.score("leather", every))
    assert (plain.search(["lether"], 9)[0] == -1).all(), "off unless asked for"
    assert LexicalIndex.open(tmp_path / "words").corrected("lether") == "leather", "the folder says it"
    assert LexicalIndex.open(tmp_path / "plain").corrected("lether") == "lether"


def test_changes_count_at_once_and_after_a_compaction(index, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    live = DeltaWords(index, scratch)
    texts: dict[int, str | None] = dict(enumerate(TEXTS))

    def change(row: int, text: str | None) -> None:
        live.put(row, text)
        live.commit()
        texts[row] = text

    assert live.corrected("umbrela") == "umbrela"
    live.grow(1)
    change(9, "violet umbrella")
    assert live.corrected("umbrela") == "umbrella"
    change(9, None)
    assert live.corrected("umbrela") == "umbrela", "a word that no document has any more"
    for row in (0, 1, 2):
        change(row, "brown thing")
    assert live.corrected("xeather") == "heather"
    assert live.corrected("leather") == "heather", "nor does it count as known"
    job = live.snapshot(lambda: texts.values())
    live.install(job())
    assert live.corrected("leather") == "heather"
    change(0, "leather strap")
    assert live.corrected("leather") == "leather"
