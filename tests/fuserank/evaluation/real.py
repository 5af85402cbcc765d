"""Per-query nDCG@10 of two real word searches on the same queries, from ../shared/data; and a mixture that looks alike.

Both are read from the shops' raw files by code of their own; only the search and the metric are the platform's.
"""

import csv
import hashlib
import json
import tempfile
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from fuserank.evaluation.metrics import id_metrics
from fuserank.retrieval.lexical import LexicalIndex

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
REASON = "../shared/data is not here"


def icecat() -> tuple[np.ndarray, np.ndarray]:
    """70 queries that people judged: BM25 over title, brand and description, and over titles alone."""
    products = []
    for file in sorted((DATA / "icecat").glob("*.json.zip")):
        with zipfile.ZipFile(file) as parts:
            for name in parts.namelist():
                products += json.loads(parts.read(name))
    judged: dict[str, dict[str, float]] = {}
    with (DATA / "icecat" / "judgments.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            judged.setdefault(row["query"], {})[row["docid"]] = float(row["rating"])
    ids = [str(product["id"]) for product in products]
    every = (("title", "supplier", "short_description"), ("title",))
    texts = [[" ".join(str(product.get(name) or "") for name in names) for product in products] for names in every]
    return _searched(ids, texts, judged)


def fashion() -> tuple[np.ndarray, np.ndarray]:
    """172 queries "colour type" over the 4,126 held-out products: BM25 over titles, and over their first four words."""
    with (DATA / "fashion" / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if _sha(row["title"].lower()) % 10 >= 8]
    both, kinds = defaultdict(set), defaultdict(set)
    for row in rows:
        both[row["baseColour"].lower(), row["articleType"].lower()].add(row["product_id"])
        kinds[row["articleType"].lower()].add(row["product_id"])
    judged = {
        f"{colour} {kind}": {product: 2.0 if product in found else 1.0 for product in kinds[kind]}
        for (colour, kind), found in sorted(both.items())
        if len(found) >= 5
    }
    titles = [row["title"] for row in rows]
    texts = [titles, [" ".join(title.split()[:4]) for title in titles]]
    return _searched([row["product_id"] for row in rows], texts, judged)


def mixture() -> tuple[np.ndarray, np.ndarray]:
    """Like those two, for where they are not: 15 % zeros, 30 % ones, between them a beta; and a rival of it."""
    random = np.random.default_rng(20)
    values = random.beta(2, 1.5, size=400)
    kind = random.random(400)
    values[kind < 0.15], values[kind > 0.7] = 0.0, 1.0
    rival = np.where(random.random(400) < 0.5, values, np.clip(values + random.normal(-0.05, 0.25, 400), 0, 1))
    return values, rival


def _searched(
    ids: list[str], texts: list[list[str]], judged: dict[str, dict[str, float]]
) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for shown in texts:
        with tempfile.TemporaryDirectory() as folder:
            rows, _ = LexicalIndex.build(shown, folder).search(list(judged), 100)
        ranked = [[ids[row] for row in some if row >= 0] for some in rows.tolist()]
        found.append(id_metrics(ranked, list(judged.values()))["ndcg@10"])
    kept = ~np.isnan(found[0])
    return found[0][kept], found[1][kept]


def _sha(text: str) -> int:
    return int(hashlib.sha1(text.encode()).hexdigest(), 16)
