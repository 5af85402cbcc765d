"""Splits and label queries against the protocol written out anew."""

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pyarrow as pa
import pytest

from fuserank.errors import ConfigError
from fuserank.records.label_queries import label_queries
from fuserank.records.schema import EVENT, JUDGMENT, QUERY
from fuserank.records.splits import split_events, split_of


def test_split_of() -> None:
    found = Counter()
    for number in range(2000):
        title = f"Blue Shirt {number}"
        digit = int(hashlib.sha1(title.lower().encode()).hexdigest(), 16) % 10
        wanted = "evaluation" if digit >= 8 else "validation" if digit == 7 else "training"
        assert split_of(title, 10, [7], [8, 9]) == split_of(title.upper(), 10, [7], [8, 9]) == wanted
        found[wanted] += 1
    assert 350 < found["evaluation"] < 450


def behaviour(users: int, each: int, seed: int = 0) -> pa.Table:
    times = np.sort(np.random.default_rng(seed).integers(0, 40, users * each)) * 1000  # many at one moment
    rows = [
        {
            "event_id": str(n),
            "user_id": f"u{n % users}" if n else None,
            "product_id": "a",
            "type": "view",
            "timestamp": t,
        }
        for n, t in enumerate(times.tolist())
    ]
    return pa.Table.from_pylist(rows, schema=EVENT)


def test_events_split_by_time_never_look_back() -> None:
    found = split_events(behaviour(20, 50), "time", 0.2, 0.1)
    sides: dict[str, list] = defaultdict(list)
    for row in found.to_pylist():
        sides[row["split"]].append(row["timestamp"])
    assert max(sides["training"]) < min(sides["validation"])
    assert max(sides["validation"]) < min(sides["evaluation"])
    assert abs(len(sides["evaluation"]) - 100) < 50  # as near as moments allow
    assert abs(len(sides["validation"]) - 200) < 50


def test_events_split_by_user() -> None:
    found = split_events(behaviour(2000, 3), "user", 0.2, 0.1).to_pylist()
    sides: dict[str, set] = defaultdict(set)
    for row in found:
        sides[row["split"]].add(row["user_id"])
    assert not sides["training"] & sides["evaluation"]
    assert not sides["validation"] & (sides["training"] | sides["evaluation"])
    assert None in sides["training"]
    assert 150 < len(sides["evaluation"]) < 250
    assert 330 < len(sides["validation"]) < 470
    plain = split_events(behaviour(5, 5), "last", 0.2, 0.1)
    assert plain["split"].null_count == plain.num_rows
    assert split_events(EVENT.empty_table(), "time", 0.2, 0.1).num_rows == 0


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
