"""Misspelt words: the terms of an index that are near a word nobody wrote, and a text corrected by them.

An edit adds, drops or replaces a character, or swaps two neighbours (optimal string alignment; Damerau 1964, Boytsov
2011). Reads and writes nothing.

n terms · L characters of the longest of them.
"""

from collections.abc import Callable, Iterable

import numpy as np

from fuserank.retrieval.analysis import LONGEST_TERM, located

MOST_WORDS = 8  # of one text that are looked up; the rest stays as it is
ONE_EDIT, TWO_EDITS = 4, 8  # characters a word must have for so many
_BITS = np.uint64(64)


class Vocabulary:
    """Terms, quickly found by what is nearly their spelling. They are only ever added: ask the index if one is left."""

    def __init__(self, terms: Iterable[str]):
        self._known: set[str] = set()
        self._words: list[str] = []
        self._lengths, self._marks = np.zeros(0, np.int64), np.zeros(0, np.uint64)
        self._new: list[str] = []
        self.add(terms)
        self._take()

    def add(self, terms: Iterable[str]) -> None:
        """Know these terms too."""
        for term in terms:
            if term not in self._known and ONE_EDIT - 1 <= len(term) <= LONGEST_TERM and "\0" not in term:
                self._known.add(term)
                self._new.append(term)

    def near(self, word: str, edits: int) -> list[tuple[str, int]]:
        """Terms within so many edits of the word, with how many it takes."""
        self._take()
        lengths, marks = _measure([word])
        unlike = np.bitwise_count(self._marks ^ marks[0])  # an edit changes at most two of the characters there are
        places = np.flatnonzero((np.abs(self._lengths - lengths[0]) <= edits) & (unlike <= 2 * edits))
        terms = [self._words[place] for place in places.tolist()]
        taken = _distances(word, terms, self._lengths[places], edits) if terms else np.zeros(0, np.int8)
        return [(terms[i], int(taken[i])) for i in np.flatnonzero(taken <= edits)]

    def _take(self) -> None:
        if self._new:
            lengths, marks = _measure(self._new)
            self._words += self._new
            self._lengths, self._marks = np.append(self._lengths, lengths), np.append(self._marks, marks)
            self._new = []


def corrected(text: str, count: Callable[[str], int], vocabulary: Callable[[], Vocabulary]) -> str:
    """The text with each word that no document has replaced by the nearest term there is: the fewest edits, then the
    most documents. Words with digits are left, as sizes and model numbers are; so are words that are part of a term
    that some document has ("e mail" where there is "email").

    Args:
        count: term → how many documents have it.
        vocabulary: asked only if a word is unknown.
    """
    found = located(text)
    parts: list[str] = []
    end = asked = 0
    for i, piece in enumerate(found):
        edits = _edits(piece.term) if asked < MOST_WORDS else 0
        if piece.kind != "word" or not edits or count(piece.term) or _joined(i, found, count):
            continue
        asked += 1
        near = [(taken, -count(term), term) for term, taken in vocabulary().near(piece.term, edits)]
        there = [one for one in near if one[1] < 0]
        if there:
            parts += [text[end : piece.start], min(there)[2]]
            end = piece.end
    return "".join([*parts, text[end:]])


def _edits(term: str) -> int:
    if len(term) < ONE_EDIT or any(character.isdigit() for character in term):
        return 0
    return 1 if len(term) < TWO_EDITS else 2


def _joined(i: int, found: list, count: Callable[[str], int]) -> bool:
    """Whether the word is part of two written together that some document has."""
    word = found[i]
    beside = found[i + 1 : i + 4]  # itself with the word before, the next word, that one with this
    return any(p.kind == "joined" and p.start <= word.start and word.end <= p.end and count(p.term) for p in beside)


def _distances(word: str, terms: list[str], lengths: np.ndarray, most: int) -> np.ndarray:
    """Edits from the word to each term, int8 [n]; `most` + 1 stands for all that is more. Terms may differ from the
    word by `most` characters in length."""
    longest = len(word) + most
    letters = np.array(terms, dtype=f"U{longest}").view(np.uint32).reshape(len(terms), longest).T.copy()  # [L, n]
    far = np.int8(most + 1)
    none = np.full((longest + 1, len(terms)), far)
    older, before, row = none, none, none.copy()
    row[: most + 1] = np.arange(most + 1, dtype=np.int8)[:, None]
    codes = [ord(character) for character in word]
    for i, code in enumerate(codes, 1):
        older, before, row = before, row, none.copy()
        row[0] = min(i, far)
        for j in range(max(1, i - most), min(longest, i + most) + 1):  # elsewhere it takes more than `most`
            least = np.minimum(np.minimum(before[j], row[j - 1]) + 1, before[j - 1] + (letters[j - 1] != code))
            if i > 1 and j > 1:
                swapped = (letters[j - 2] == code) & (letters[j - 1] == codes[i - 2])
                least = np.where(swapped, np.minimum(least, older[j - 2] + 1), least)
            row[j] = np.minimum(least, far)
    return row[lengths, np.arange(len(terms))]


def _measure(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lengths [n] and, as bits, which characters there are [n]."""
    codes = np.array(words, dtype=f"U{LONGEST_TERM}").view(np.uint32).reshape(len(words), LONGEST_TERM)
    bits = np.where(codes > 0, np.uint64(1) << (codes.astype(np.uint64) % _BITS), np.uint64(0))
    return np.count_nonzero(codes, axis=1), np.bitwise_or.reduce(bits, axis=1)
