"""The embedding cache: the same answers as without it, only unknown values travel, bounded, failures not remembered."""

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from serve import metrics
from serve.embedding_cache import EmbeddingCache
from serve.envelope import Envelope, Failure, Result


class Encoder:
    """Counts the letters of a text; refuses "bad"."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    async def remote(self, envelopes: list[Envelope]) -> list[Result]:
        self.seen.append([envelope.payload for envelope in envelopes])
        return [
            Result(e.request_id, error=Failure(422, "bad", "bad"))
            if e.payload == "bad"
            else Result(e.request_id, np.array([len(e.payload)], np.float32))
            for e in envelopes
        ]


def ask(cache: EmbeddingCache, *texts: Any, generation: str = "g") -> list[Any]:
    envelopes = [Envelope(f"r{i}", generation, time.time() + 9, text) for i, text in enumerate(texts)]
    results = asyncio.run(cache.remote(envelopes))
    assert [result.request_id for result in results] == [envelope.request_id for envelope in envelopes]
    return [None if result.error else float(result.value[0]) for result in results]


def test_known_values_do_not_travel(monkeypatch: pytest.MonkeyPatch):
    tally = metrics.Tally()
    monkeypatch.setattr(metrics, "_sink", tally)
    encoder = Encoder()
    cache = EmbeddingCache(encoder, "text", 10)
    assert ask(cache, "a", "bb") == [1, 2]
    assert ask(cache, "ccc", "a", "bb", "bad") == [3, 1, 2, None]
    assert ask(cache, "bad", "ccc") == [None, 3]
    assert ask(cache, "a") == [1]
    assert encoder.seen == [["a", "bb"], ["ccc", "bad"], ["bad"]]
    assert sum(tally.of("fuserank_embedding_cache_total", modality="text", outcome="hit")) == 4
    assert sum(tally.of("fuserank_embedding_cache_total", modality="text", outcome="miss")) == 5


def test_the_least_recently_used_goes_first():
    encoder = Encoder()
    cache = EmbeddingCache(encoder, "text", 2)
    for text in ("a", "bb", "a", "ccc", "a", "bb"):
        ask(cache, text)
    assert encoder.seen == [["a"], ["bb"], ["ccc"], ["bb"]]


def test_bytes_and_text_of_one_spelling_differ_and_an_empty_call_travels():
    encoder = Encoder()
    cache = EmbeddingCache(encoder, "text", 2)
    assert ask(cache) == []
    assert encoder.seen == [[]]
    assert ask(cache, "\ud800", b"xy") == [1, 2]


def test_each_generation_has_its_own_vectors():
    encoder = Encoder()
    cache = EmbeddingCache(encoder, "text", 10)
    for generation in ("g", "h", "g", "h"):
        assert ask(cache, "a", generation=generation) == [1]
    assert encoder.seen == [["a"], ["a"]]
