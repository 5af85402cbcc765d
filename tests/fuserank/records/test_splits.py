"""Splits and label queries against the protocol written out anew."""

import hashlib
from collections import Counter, defaultdict

import pyarrow as pa
import pytest

from fuserank.errors import ConfigError
from fuserank.records.label_queries import label_queries
from fuserank.records.schema import JUDGMENT, QUERY
from fuserank.records.splits import split_of


def test_split_of() -> None:
    found = Counter()
    for number in range(2000):
        title = f"Blue Shirt {number}"
        digit = int(hashlib.sha1(title.lower().encode()).hexdigest(), 16) % 10
        wanted = "evaluation" if digit >= 8 else "validation" if digit == 7 else "training"
        assert split_of(title, 10, [7], [8, 9]) == split_of(title.upper(), 10, [7], [8, 9]) == wanted
        found[wanted] += 1
    assert 350 < found["evaluation"] < 450


def catalogue() -> pa.Table:
    rows = []
    for split in ("training", "validation", "evaluation"):
        for colour in ("Red", "Blue", "Green", "Black"):
            for kind in ("Shoes", "Hats", "Bags"):
                for number in range({"Red": 6, "Blue": 4, "Green": 2, "Black": 1}[colour]):
                    labels = [("baseColour", colour), ("articleType", kind)]
                    rows.append({"product_id": f"{split}-{colour}-{kind}-{number}", "labels": labels, "split": split})
        rows.append({"product_id": f"{split}-plain", "labels": [("articleType", "Shoes")], "split": split})
    types = {"product_id": pa.string(), "labels": pa.map_(pa.string(), pa.string()), "split": pa.string()}
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()})


def test_label_queries() -> None:
    queries, judgments = label_queries(catalogue(), ["baseColour", "articleType"], "articleType", 5, 5)
    assert queries.schema.equals(QUERY)
    assert judgments.schema.equals(JUDGMENT)
    least = {"training": 1, "validation": 3, "evaluation": 5}
    wanted = {}
    for split, minimum in least.items():
        for colour, count in {"red": 6, "blue": 4, "green": 2, "black": 1}.items():
            for kind in ("shoes", "hats", "bags"):
                text = f"{colour} {kind}"
                out = int(hashlib.sha1(text.encode()).hexdigest(), 16) % 5 == 0
                if count >= minimum and not (out and split != "evaluation"):
                    wanted[f"{split}:{text}"] = "unseen" if out else "seen"
    assert {row["query_id"]: row["group"] for row in queries.to_pylist()} == wanted
    grades = defaultdict(dict)
    for row in judgments.to_pylist():
        grades[row["query_id"]][row["product_id"]] = row["grade"]
    assert set(grades) == set(wanted)
    for query_id, judged in grades.items():
        split, text = query_id.split(":")
        colour, kind = text.split()
        assert all(product.startswith(split) for product in judged)
        assert len(judged) == 13 + (kind == "shoes")
        for product, grade in judged.items():
            assert grade == (2 if f"-{colour}-{kind}-" in product.lower() else 1)


def test_required_must_be_a_column() -> None:
    with pytest.raises(ConfigError, match="required"):
        label_queries(catalogue(), ["baseColour"], "articleType", 5, 5)
