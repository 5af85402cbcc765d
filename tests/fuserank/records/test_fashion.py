"""Splits and queries of the real fashion catalogue, against the protocol computed from the csv by itself."""

import csv
import hashlib
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path

import pytest

from fuserank import config
from fuserank.records.label_queries import label_queries
from fuserank.records.mapping import ColumnMap
from fuserank.records.products import FIELDS, read_products
from fuserank.records.quarantine import Quarantine
from fuserank.records.splits import split_of

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT.parent / "shared" / "data" / "fashion"
pytestmark = pytest.mark.skipif(not (DATA / "products.csv").is_file(), reason="../shared/data/fashion is not here")


def sha(text: str) -> int:
    return int(hashlib.sha1(text.encode()).hexdigest(), 16)


def test_protocol() -> None:
    records = config.load(ROOT / "workloads" / "configs" / "fashion.yaml").records
    made = records.label_queries
    assert made is not None
    aside = Quarantine("products")
    columns = ColumnMap(FIELDS, records.products.map, {}, tuple(records.labels))
    split = partial(
        split_of,
        modulus=records.split.modulus,
        validation=records.split.validation,
        evaluation=records.split.evaluation,
    )
    products = read_products(DATA, records.products.files, columns, aside, records.split.key, split)
    assert aside.rows_in == products.num_rows == 20509
    assert len(aside) == 0
    queries, judgments = label_queries(products, made.columns, made.required, made.min_products, made.holdout_modulus)

    with (DATA / "products.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    digits = {row["product_id"]: sha(row["title"].lower()) % 10 for row in rows}
    sides = {name: "evaluation" if d >= 8 else "validation" if d == 7 else "training" for name, d in digits.items()}
    assert dict(zip(*(products[c].to_pylist() for c in ("product_id", "split")), strict=True)) == sides
    assert Counter(sides.values()) == {"training": 14248, "validation": 2135, "evaluation": 4126}

    pairs, types = defaultdict(set), defaultdict(set)
    for row in rows:
        side = sides[row["product_id"]]
        pairs[side, f"{row['baseColour']} {row['articleType']}".lower(), row["articleType"]].add(row["product_id"])
        types[side, row["articleType"]].add(row["product_id"])
    wanted = {}
    for (side, text, kind), both in pairs.items():
        least = {"training": 1, "validation": 3, "evaluation": 5}[side]
        if len(both) >= least and (side == "evaluation" or sha(text) % 5 != 0):
            wanted[side, text] = {name: 2.0 if name in both else 1.0 for name in types[side, kind]}
    found: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    names = {row["query_id"]: (row["split"], row["text"]) for row in queries.to_pylist()}
    for row in judgments.to_pylist():
        found[names[row["query_id"]]][row["product_id"]] = row["grade"]
    assert found == wanted
    evaluation = [row for row in queries.to_pylist() if row["split"] == "evaluation"]
    assert len(evaluation) == 172  # as the prototype of this protocol had
    assert {row["text"] for row in evaluation if row["group"] == "unseen"} == {
        row["text"] for row in evaluation if sha(row["text"]) % 5 == 0
    }
