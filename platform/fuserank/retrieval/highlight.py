"""Marks a query's words in a text by the analysis of the word index, so that what is marked is what was matched. The
result is HTML: the text is escaped, matches stand in <mark>. Reads and writes nothing."""

from collections.abc import Collection
from html import escape
from typing import NamedTuple

from fuserank.retrieval.analysis import located

LOOKED_AT = 2000  # characters of a text; matches beyond them are not marked
SNIPPET = 200  # characters of a text that a snippet shows
_BEFORE = 40  # characters shown before a snippet's first match


class _Match(NamedTuple):
    start: int
    end: int
    term: str


def marked(text: str, terms: Collection[str]) -> str | None:
    """The whole text, its matches marked; None without a match.

    Args:
        terms: the query's (analysis.terms).
    """
    matches = _matches(text, terms)
    return _html(text, matches, 0, len(text)) if matches else None


def snippet(text: str, terms: Collection[str]) -> str | None:
    """At most SNIPPET characters (ellipses included, markup not) around the first place where most of the query's terms
    stand together; None without a match."""
    text = " ".join(text[:LOOKED_AT].split())
    matches = _matches(text, terms)
    if not matches:
        return None
    if len(text) <= SNIPPET:
        return _html(text, matches, 0, len(text))
    room = SNIPPET - _BEFORE - 2
    together = [len({m.term for m in matches if first.start <= m.start < first.start + room}) for first in matches]
    begin = max(0, matches[together.index(max(together))].start - _BEFORE)
    begin = min(begin, len(text) - SNIPPET + 1)
    if begin > 0 and text[begin - 1] != " ":  # from the next word on, if there is one soon
        space = text.find(" ", begin, begin + _BEFORE)
        begin = space + 1 if space >= 0 else begin
    end = min(len(text), begin + SNIPPET - 2)
    if end < len(text) and text[end] != " ":
        space = text.rfind(" ", begin + _BEFORE + 1, end)
        last = max((m.end for m in matches if m.end <= end), default=begin)
        end = space if space >= last else end
    return ("…" if begin else "") + _html(text, matches, begin, end) + ("…" if end < len(text) else "")


def _matches(text: str, terms: Collection[str]) -> list[_Match]:
    found = [_Match(piece.start, piece.end, piece.term) for piece in located(text[:LOOKED_AT]) if piece.term in terms]
    return sorted(found)


def _html(text: str, matches: list[_Match], begin: int, end: int) -> str:
    parts: list[str] = []
    done = begin
    opened = False
    for match in matches:
        start, stop = max(match.start, begin), min(match.end, end)
        if start >= stop or stop <= done:
            continue
        if not opened or start > done:  # matches that touch or overlap share a mark
            parts += ["</mark>" if opened else "", escape(text[done:start]), "<mark>"]
            opened, done = True, start
        parts.append(escape(text[max(start, done) : stop]))
        done = stop
    return "".join([*parts, "</mark>" if opened else "", escape(text[done:end])])
