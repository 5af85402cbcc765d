"""Two generations asked the same texts, as serving would answer them without a user: what users would see change.

Reads two generations' folders, without the live changes since. Places are counted from 1.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

SHOWN = 10
MOVERS = 20


class Searching:
    """One generation, asked by text."""

    def __init__(self, folder: Path, candidates: int, depth: int):
        """Raises StageError, ModelError: a part of it cannot be loaded."""
        from fuserank.features.featurizer import Featurizer
        from fuserank.feedback.behaviour import Behaviour
        from fuserank.models.checkpoint import load_model, load_reranker
        from fuserank.retrieval.generation import open_generation
        from fuserank.retrieval.hybrid import Hybrid
        from fuserank.retrieval.pipeline import Retriever

        opened = open_generation(folder)
        self.id, self.catalogue, self._candidates, self._depth = opened.id, opened.catalogue, candidates, depth
        self._retriever = Retriever(opened.catalogue, Hybrid.of(opened.manifest))
        self._model = load_model(opened.model_folder, ("text",)).eval()
        self._reranker = load_reranker(opened.model_folder, self._model.modalities)
        self._behaviour = Behaviour.load(opened.model_folder)
        self._featurizer = Featurizer.load(opened.featurizer_folder)
        self.seconds: list[float] = []

    def search(self, text: str) -> list[str]:
        """Product ids, best first."""
        import torch

        from fuserank.features.batch import collate
        from fuserank.retrieval.pipeline import SearchRequest
        from fuserank.retrieval.rerank_inputs import placed, rerank, rerank_inputs

        begin = time.perf_counter()
        model = self._model
        vectors, mask = torch.zeros(1, len(model.modalities), model.width), torch.zeros(1, len(model.modalities))
        column = model.modalities.index("text")
        with torch.inference_mode():
            inputs = collate("text", self._featurizer.text([text]), pad_id=self._featurizer.settings.pad_id)
            vectors[:, column], mask[:, column] = model.encode("text", inputs), 1
            fused, heads = (part[0].numpy() for part in model.search_vectors(vectors, mask.bool()))
        found = self._retriever.search([SearchRequest(text, fused, heads, candidates=self._candidates)])[0]
        seen = rerank_inputs(found.first(self._depth), heads, self.catalogue, self._behaviour, [])
        scores = placed(found.score, rerank(self._reranker, seen))
        rows = found.rows[np.argsort(-scores, kind="stable")]
        self.seconds.append(time.perf_counter() - begin)
        return [self.catalogue.ids[row] for row in rows]


def compared(old: Path, new: Path, texts: Sequence[str], candidates: int, depth: int) -> dict[str, Any]:
    """Overlap of the first ten, what moved most, and the milliseconds of a search in this process, one at a time.

    Returns:
        {"queries", "overlap@10": mean share of the first ten that both show, "unchanged": queries whose first ten are
        the same in the same order, "movers": [{"query", "product_id", "title", "before", "after": place or None}],
        "old", "new": {"id", "p50_ms", "p99_ms"}}.
    """
    sides = [Searching(folder, candidates, depth) for folder in (old, new)]
    for side in sides:  # what is loaded when first used is no part of a search
        side.search(texts[0])
        side.seconds.clear()
    overlaps, unchanged, moved = [], 0, []
    for text in texts:
        before, after = (side.search(text) for side in sides)
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
        "old": _timed(sides[0]),
        "new": _timed(sides[1]),
    }


def _timed(side: Searching) -> dict[str, Any]:
    p50, p99 = np.percentile(side.seconds, (50, 99))
    return {"id": side.id, "p50_ms": round(1000 * p50, 3), "p99_ms": round(1000 * p99, 3)}
