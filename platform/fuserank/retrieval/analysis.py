"""Text → the terms the lexical index stores and searches; reads and writes nothing.

Words are NFKC, lower-cased, without Latin accents, their plural ending removed. Scripts written without spaces
(Chinese, Japanese, Korean) give characters and pairs of characters. A hyphenated word gives its parts and itself
written together ("t-shirt" → t shirt tshirt), and so does a lone letter before a word ("t shirt"). Rules were chosen on
the training split of the fashion catalogue (docs/EXPERIMENTS.md).
"""

import re
import unicodedata

_RUN = "\u1100-\u11ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_MARKS = "\u0610-\u065f\u0900-\u0963\u0966-\u0dff\u0e00-\u0e7f"  # vowel signs, which `\\w` leaves out
_PIECES = re.compile(f"(?P<run>[{_RUN}]+)|(?P<word>(?:(?![{_RUN}])[^\\W_]|[{_MARKS}])+)")
_ACCENTS = re.compile("[\u0300-\u036f]")
_APOSTROPHE = re.compile("['\u2019\u02bc]s?(?![^\\W_])|['\u2019\u02bc]")
_JOINING = frozenset("-\u2010\u2011")
LONGEST_TERM = 64  # characters; tantivy refuses terms beyond 64 KiB, and nobody types one of this length


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
    text = unicodedata.normalize("NFKC", text).lower()
    if not text.isascii():
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    text = _APOSTROPHE.sub("", text)
    found: list[str] = []
    before, end = "", -1  # the last word and where it ended
    for match in _PIECES.finditer(text):
        if match.lastgroup == "run":
            run = match.group()
            found += run
            found += [run[i : i + 2] for i in range(len(run) - 1)]
            before = ""
            continue
        word = match.group()[:LONGEST_TERM]
        found.append(singular(word))
        gap = text[end : match.start()] if before else ""
        if gap in _JOINING or (gap == " " and len(before) == 1 and before.isalpha() and len(word) > 1):
            found.append(singular((before + word)[:LONGEST_TERM]))
        before, end = word, match.end()
    return found
