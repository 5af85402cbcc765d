"""Two generations asked the same texts, as serving would answer them without a user: what users would see change.

Reads two generations' folders, without the live changes since. Places are counted from 1.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workloads.searching import Searching

SHOWN = 10
MOVERS = 20


def compared(old: Path, new: Path, texts: Sequence[str], candidates: int, depth: int) -> dict[str, Any]:
    """Overlap of the first ten, what moved most, and the milliseconds of a search in this process, one at a time.

    Returns:
        {"queries", "overlap@10": mean share of the first ten that both show, "unchanged": queries whose first ten are
        the same in the same order, "movers": [{"query", "product_id", "title", "before", "after": place or None}],
        "old", "new": {"id", "p50_ms", "p99_ms"}}.
    """
    sides = [Searching(folder, candidates) for folder in (old, new)]
    for side in sides:  # what is loaded when first used is no part of a search
        side.search(texts[0], depth)
    seconds: tuple[list[float], list[float]] = ([], [])
    overlaps, unchanged, moved = [], 0, []
    for text in texts:
        before, after = (_timed(side, text, depth, spent) for side, spent in zip(sides, seconds, strict=True))
        tops = [set(before[:SHOWN]), set(after[:SHOWN])]
        overlaps.append(len(tops[0] & tops[1]) / max(len(tops[0]), len(tops[1]), 1))
        unchanged += before[:SHOWN] == after[:SHOWN]
        places = [{name: place for place, name in enumerate(order, 1)} for order in (before, after)]
        for name in tops[0] | tops[1]:
            was, now = places[0].get(name), places[1].get(name)
            ends = [place if place is not None else 2 * candidates for place in (was, now)]
            moved.append((abs(ends[0] - ends[1]), text, name, was, now))
    moved.sort(key=lambda one: (-one[0], one[1], one[2]))
    titles = {}
    for side in sides:
        rows = [side.catalogue.rows[name] for _, _, name, _, _ in moved[:MOVERS] if name in side.catalogue.rows]
        titles |= {d["product_id"]: d["title"] for d in side.catalogue.documents(np.array(rows, np.int64))}
    return {
        "queries": len(texts),
        "overlap@10": float(np.mean(overlaps)),
        "unchanged": unchanged,
        "movers": [
            {"query": text, "product_id": name, "title": titles.get(name), "before": was, "after": now}
            for distance, text, name, was, now in moved[:MOVERS]
            if distance
        ],
        "old": _told(sides[0], seconds[0]),
        "new": _told(sides[1], seconds[1]),
    }


def _timed(side: Searching, text: str, depth: int, spent: list[float]) -> list[str]:
    begin = time.perf_counter()
    found = side.search(text, depth)
    spent.append(time.perf_counter() - begin)
    return found


def _told(side: Searching, spent: list[float]) -> dict[str, Any]:
    p50, p99 = np.percentile(spent, (50, 99))
    return {"id": side.id, "p50_ms": round(1000 * p50, 3), "p99_ms": round(1000 * p99, 3)}
