"""Completions of what somebody types: how titles begin, brands and categories, with how many products have them.

Kept in memory and changed product by product; reads and writes nothing.
"""

import bisect
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from fuserank.retrieval.analysis import MARKS, folded

LEADING = 4  # words of a title's beginning
LONGEST = 80  # characters of a phrase
KEPT = 1000  # completions remembered until something changes
_EDGES = " ,.;:!?()[]{}<>\"'“”„«»‘’|/\\–—-+*&"
_SIGNS = re.compile(f"(?:(?![{MARKS}])[\\W_])+")
_LAST = "\U0010ffff"


class Suggestions:
    """Phrases of products. Not thread-safe."""

    def __init__(self, products: Iterable[Mapping[str, Any]]):
        """
        Args:
            products: what `replace` takes of each.
        """
        self._shown: dict[str, dict[str, int]] = {}  # phrase as it is compared → as it is written, how often
        for product in products:
            for key, phrase in _phrases(product).items():
                forms = self._shown.setdefault(key, {})
                forms[phrase] = forms.get(phrase, 0) + 1
        self._counts = {key: sum(forms.values()) for key, forms in self._shown.items()}
        self._keys = sorted(self._shown)
        self._answers: dict[tuple[str, int], list[tuple[str, int]]] = {}

    def replace(self, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> None:
        """A product is now another, with `title`, `brand` and `category`; None: it is not there."""
        before, after = (_phrases(product) if product else {} for product in (old, new))
        if before == after:
            return
        self._answers.clear()
        for change, phrases in ((-1, before), (1, after)):
            for key, phrase in phrases.items():
                self._count(key, phrase, change)

    def complete(self, text: str, limit: int) -> list[tuple[str, int]]:
        """Phrases that begin with the text, the most frequent first, with how many products have them.

        Case, accents and punctuation do not count; the text's last word may be unfinished, the others not. A phrase
        that only goes on where a shorter one with as many products is shown is left out.
        """
        begun = _compared(text)
        if not begun:
            return []
        prefix = begun + " " if text[-1:].isspace() else begun
        if (prefix, limit) not in self._answers:
            if len(self._answers) >= KEPT:
                self._answers.clear()
            self._answers[prefix, limit] = self._find(prefix, limit)
        return self._answers[prefix, limit]

    def _find(self, prefix: str, limit: int) -> list[tuple[str, int]]:
        first, last = (bisect.bisect_left(self._keys, end) for end in (prefix, prefix + _LAST))
        ranked = sorted(self._keys[first:last], key=lambda key: (-self._counts[key], len(key), key))
        chosen: list[str] = []
        for key in ranked:
            if len(chosen) == limit:
                break
            if not any(
                key.startswith(f"{shorter} ") and self._counts[shorter] == self._counts[key]
                for shorter in chosen
                if shorter != prefix
            ):
                chosen.append(key)
        return [(self._form(key), self._counts[key]) for key in chosen]

    def _form(self, key: str) -> str:
        """As most products write it."""
        return min(self._shown[key].items(), key=lambda item: (-item[1], item[0]))[0]

    def _count(self, key: str, phrase: str, change: int) -> None:
        forms = self._shown.setdefault(key, {})
        forms[phrase] = forms.get(phrase, 0) + change
        if not forms[phrase]:
            del forms[phrase]
        if key not in self._counts:
            bisect.insort(self._keys, key)
        self._counts[key] = self._counts.get(key, 0) + change
        if not forms:
            del self._counts[key], self._shown[key]
            self._keys.pop(bisect.bisect_left(self._keys, key))


def _phrases(product: Mapping[str, Any]) -> dict[str, str]:
    """As compared → as written; each once, though title and brand may both give it."""
    found: dict[str, str] = {}
    for whole in (product.get("brand"), *(product.get("category") or ())):
        phrase = (whole or "").strip()
        if len(phrase) <= LONGEST and (key := _compared(phrase)):
            found.setdefault(key, phrase)
    words, keys = [], []
    for word in (product.get("title") or "").split(maxsplit=4 * LEADING)[: 4 * LEADING]:
        words.append(word)
        if key := _letters(word):
            keys.append(key)
            phrase = " ".join(words).strip(_EDGES)
            if len(phrase) > LONGEST:
                break
            found.setdefault(" ".join(keys), phrase)
        if len(keys) == LEADING:
            break
    return found


def _compared(text: str) -> str:
    return " ".join(key for word in text.split() if (key := _letters(word)))


@functools.lru_cache(65_536)
def _letters(word: str) -> str:
    return _SIGNS.sub("", folded(word))
