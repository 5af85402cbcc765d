"""Text → the terms the lexical index stores and searches; reads and writes nothing.

Words are NFKC, lower-cased, without Latin accents, their plural ending removed. Scripts written without spaces
(Chinese, Japanese, Korean) give characters and pairs of characters. A hyphenated word gives its parts and itself
written together ("t-shirt" → t shirt tshirt), and so does a lone letter before a word ("t shirt"). Rules were chosen on
the training split of the fashion catalogue (docs/EXPERIMENTS.md).
"""

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

_RUN = "\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
MARKS = "\u0610-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u0e7f"  # vowel signs, which `\\w` leaves out
_PIECES = re.compile(f"(?P<run>[{_RUN}]+)|(?P<word>(?:(?![{_RUN}])[^\\W_]|[{MARKS}])+)")
_ACCENTS = re.compile("[\u0300-\u036f]")
_CLUSTER = re.compile(".[\u0300-\u036f\u3099\u309a]+|[^\x00-\x7f]", re.DOTALL)  # what normal forms may change
_APOSTROPHE = re.compile("['\u2019\u02bc]s?(?![^\\W_])|['\u2019\u02bc]")
_JOINING = frozenset("-\u2010\u2011")
LONGEST_TERM = 64  # characters; tantivy refuses terms beyond 64 KiB, and nobody types one of this length


class Piece(NamedTuple):
    """One term and where in the text it stands."""

    term: str
    start: int
    end: int
    kind: str  # word | joined (two words written together) | run (of a script without spaces)


def singular(word: str) -> str:
    """An English plural's singular, roughly, alike for products and queries (after the S-stemmer of Harman 1991)."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us")):
        return word
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def terms(text: str) -> list[str]:
    """The terms of a text in order, duplicates kept; an empty list for text without letters or digits."""
    return [piece.term for piece in pieces(_APOSTROPHE.sub("", folded(text)))]


def folded(text: str) -> str:
    """The text as it is compared: NFKC, lower case, without Latin accents."""
    text = unicodedata.normalize("NFKC", text).lower()
    return text if text.isascii() else _bare(text)


def located(text: str) -> list[Piece]:
    """The pieces of a text as `terms` finds them, with their places in the text as it was given."""
    places = [*range(len(text) + 1)]
    if not text.isascii():
        text, places = _replaced(text, places, _CLUSTER, lambda part: unicodedata.normalize("NFKC", part))
    places = [place for character, place in zip(text, places, strict=False) for _ in character.lower()] + places[-1:]
    text = text.lower()
    if not text.isascii():
        text, places = _replaced(text, places, _CLUSTER, _bare)
    text, places = _replaced(text, places, _APOSTROPHE, lambda part: "")
    return [
        # up to the next character that is left, so that accents and ’s belong to their word
        piece._replace(start=places[piece.start], end=max(places[piece.end], places[piece.end - 1] + 1))
        for piece in pieces(text)
    ]


def pieces(text: str) -> list[Piece]:
    """The pieces of a text that is folded and has no apostrophes."""
    found: list[Piece] = []
    before, begin, end = "", 0, -1  # the last word, where it began and where it ended
    for match in _PIECES.finditer(text):
        start = match.start()
        if match.lastgroup == "run":
            run = match.group()
            found += [Piece(character, start + i, start + i + 1, "run") for i, character in enumerate(run)]
            found += [Piece(run[i : i + 2], start + i, start + i + 2, "run") for i in range(len(run) - 1)]
            before = ""
            continue
        word = match.group()[:LONGEST_TERM]
        found.append(Piece(singular(word), start, match.end(), "word"))
        gap = text[end:start] if before else ""
        if gap in _JOINING or (gap == " " and len(before) == 1 and before.isalpha() and len(word) > 1):
            found.append(Piece(singular((before + word)[:LONGEST_TERM]), begin, match.end(), "joined"))
        before, begin, end = word, start, match.end()
    return found


def _bare(text: str) -> str:
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


def _replaced(
    text: str, places: list[int], pattern: re.Pattern[str], change: Callable[[str], str]
) -> tuple[str, list[int]]:
    """Every match changed, and for each character of the result, and its end, the place."""
    parts: list[str] = []
    kept: list[int] = []
    end = 0
    for match in pattern.finditer(text):
        new = change(match.group())
        parts += [text[end : match.start()], new]
        kept += places[end : match.start()]
        kept += [places[min(match.start() + i, match.end() - 1)] for i in range(len(new))]
        end = match.end()
    return "".join([*parts, text[end:]]), kept + places[end:]
