"""How long after a shop sent a change a search on a replica finds it, while the replica answers searches.

A generation's catalogue, a SQLite store and serve/live.py's `Live`, which follows the change log as a retriever does. A
process of its own writes RATE changes a second, ten at a time, with vectors: seven existing products with another
title and vector to three new ones. Of each ten the last is looked for, by its vector, every PROBE seconds in the
replica's compute thread; the time counts from before the write until the search that finds it has returned. In the same
thread run SEARCHES searches a second by words and vector (200 candidates each, every second one with a filter). The
encoders are left out: vectors come with the changes. Compactions happen as in serving.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from mixture import mixture, unit
from watch import Watch

from fuserank.records.schema import PRODUCT
from fuserank.retrieval.catalogue import Catalogue, write_catalogue
from fuserank.retrieval.pipeline import Retriever, SearchRequest
from fuserank.store.changes import Edit, StoredVectors
from fuserank.store.database import Database
from serve.live import Live

RATE = 200  # changes a second
AT_ONCE = 10
NEW = 3  # of them
SEARCHES = 20  # a second
PROBE = 0.02
COMPACT_AFTER = 5000  # serve.compact_after
GENERATION = "g"
WORDS = 20_000
MODALITIES = 1


def titles(rows: int, seed: int = 0) -> list[str]:
    """Eight words each, by Zipf's law, as words of shops are."""
    random = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(random.choice(letters, random.integers(3, 10))) for _ in range(WORDS)])
    ends = np.cumsum(1 / np.arange(1, WORDS + 1))
    chosen = words[np.searchsorted(ends / ends[-1], random.random((rows, 8))).clip(max=WORDS - 1)]
    return [" ".join(row) for row in chosen]


def write_base(folder: Path, rows: int, width: int, kind: Any) -> float:
    """A catalogue; seconds it took."""
    begin = time.perf_counter()
    texts = titles(rows)
    columns = {name: pa.nulls(rows, PRODUCT.field(name).type) for name in PRODUCT.names}
    columns["product_id"] = pa.array([f"p{row}" for row in range(rows)])
    columns["title"] = pa.array(texts)
    columns["in_stock"] = pa.array(np.arange(rows) % 5 > 0)
    vectors = mixture(rows, width)
    modalities = np.broadcast_to(vectors[:, None, :].astype(np.float16), (rows, MODALITIES, width))
    products = pa.table(columns, schema=PRODUCT)
    write_catalogue(folder, products, modalities, np.ones((rows, MODALITIES), bool), vectors, texts, kind)
    return time.perf_counter() - begin


def vector_of(base: np.ndarray, number: int) -> np.ndarray:
    """Of change `number`: near a product's, as a new article of a kind is; unlike any other."""
    random = np.random.default_rng([21, number])
    near = base[random.integers(len(base))]
    return unit(near + 0.4 * unit(random.standard_normal(len(near))))


def write_changes(folder: Path, seconds: int) -> None:
    """The shop: prints a line of JSON for each change that is to be looked for: number, product, time it was sent."""
    base = np.load(folder / "vectors.npy", mmap_mode="r")
    existing = iter(np.random.default_rng(22).permutation(len(base)).tolist())
    words = titles(1000, seed=23)
    with Database(f"sqlite:///{folder / 'store.db'}") as database:
        begin, number = time.time(), 0
        while number < RATE * seconds:
            ids = [f"n{number + i}" if i < NEW else f"p{next(existing)}" for i in range(AT_ONCE)]
            found = [vector_of(base, number + i) for i in range(AT_ONCE)]
            edits = [
                Edit("upsert", identity, {"product_id": identity, "title": words[(number + i) % len(words)]})
                for i, identity in enumerate(ids)
            ]
            time.sleep(max(0.0, begin + number / RATE - time.time()))
            sent = time.time()
            outcomes = database.add_changes(edits, lambda identity: None)
            rows = {}
            for outcome, vector in zip(outcomes, found, strict=True):
                assert outcome.seq is not None
                parts = np.repeat(vector[None].astype(np.float16), MODALITIES, axis=0)
                stored = StoredVectors(parts.tobytes(), np.ones(MODALITIES, bool).tobytes(), vector.tobytes())
                rows[outcome.seq] = (outcome.product_id, stored)
            database.add_vectors(GENERATION, rows)
            print(json.dumps([number + AT_ONCE - 1, ids[-1], sent]), flush=True)
            number += AT_ONCE
        print(json.dumps(number / (time.time() - begin)), flush=True)


class Replica:
    """A retriever's catalogue and its one compute thread."""

    def __init__(self, folder: Path):
        self.base = Catalogue.open(folder)
        self.thread = ThreadPoolExecutor(1)
        self.live = Live(
            self.base, GENERATION, 0, Database(f"sqlite:///{folder / 'store.db'}"),
            lambda product: str(product["title"] or ""), self.thread, COMPACT_AFTER,
        )  # fmt: skip
        self.retriever = Retriever(self.live.catalogue)
        self.searched: list[float] = []  # seconds of each search, waiting included
        self.stopped = threading.Event()

    def serve(self) -> None:
        """Searches at a steady rate; one that is late is still counted from when it was due."""
        random, words = np.random.default_rng(24), titles(500, seed=25)
        begin = time.perf_counter()
        for place in range(10**9):
            due = begin + place / SEARCHES
            if self.stopped.wait(max(0.0, due - time.perf_counter())):
                return
            query = np.asarray(self.base.vectors[random.integers(self.base.size)], np.float32)
            request = SearchRequest(
                words[place % len(words)], query, filter={"in_stock": True} if place % 2 else None, candidates=200
            )
            self.thread.submit(self.retriever.search, [request]).result()
            self.searched.append(time.perf_counter() - due)

    def found(self, pending: dict[str, tuple[int, float]]) -> list[str]:
        """The products whose new vector is the best match of itself."""
        ids = list(pending)[:32]
        requests = [SearchRequest(query_vector=vector_of(self.base.vectors, pending[i][0]), candidates=1) for i in ids]
        results = self.thread.submit(self.retriever.search, requests).result()
        names = self.live.catalogue.ids
        return [
            identity
            for identity, found in zip(ids, results, strict=True)
            if len(found) and found.fused[0] > 0.9999 and names[found.rows[0]] == identity
        ]


def measure(rows: int, width: int, seconds: int, kind: Any) -> dict[str, Any]:
    """Seconds until changes are found, and what searches took meanwhile."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        figures: dict[str, Any] = {"live_rows": rows, "live_build_s": write_base(folder, rows, width, kind)}
        watch = Watch(os.getpid())
        replica = Replica(folder)
        line = [sys.executable, __file__, str(folder), str(seconds)]
        shop = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        pending: dict[str, tuple[int, float]] = {}
        rates: list[float] = []
        readers = [threading.Thread(target=_read, args=(shop, pending, rates)), threading.Thread(target=replica.serve)]
        for reader in readers:
            reader.start()
        waited: list[float] = []
        compacting = 0.0
        looked = time.time()
        while shop.poll() is None or readers[0].is_alive() or pending:
            if pending:
                for identity in replica.found(dict(pending)):
                    waited.append(time.time() - pending.pop(identity)[1])
            if waited and not pending and not readers[0].is_alive():
                break
            time.sleep(PROBE)
            if any(thread.name == "compaction" for thread in threading.enumerate()):
                compacting += time.time() - looked
            looked = time.time()
        replica.stopped.set()
        readers[1].join()
        compactions, delta = replica.live.compactions, replica.live.catalogue.delta
        replica.live.close()
        watch.close()
        figures["live_peak_mib"] = watch.peak / 2**20
        for name, values in (("visible", waited), ("live_search", replica.searched)):
            for share in (50, 99, 100):
                figures[f"{name}_{'max' if share == 100 else f'p{share}'}_s"] = float(np.percentile(values, share))
    return figures | {
        "visible_changes": len(waited),
        "updates_per_s": rates[0],
        "live_searches": len(replica.searched),
        "live_compactions": compactions,
        "live_compacting_s": compacting,
        "live_delta_left": delta,
    }


def _read(shop: subprocess.Popen, pending: dict[str, tuple[int, float]], rates: list[float]) -> None:
    for line in shop.stdout or ():
        said = json.loads(line)
        if isinstance(said, list):
            pending[said[1]] = (said[0], said[2])
        else:
            rates.append(said)


if __name__ == "__main__":
    write_changes(Path(sys.argv[1]), int(sys.argv[2]))
