"""Two runs' evaluations, query by query: refused unless they asked the same of the same catalogue.

Reads metrics.json and per_query.parquet (per_user.parquet) of two evaluate/ folders; writes nothing.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.errors import EvaluationError
from fuserank.evaluation.intervals import paired_difference, rounded, seed_of
from fuserank.evaluation.significance import holm, paired_test

RECOMMENDATION = "recommendation"


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    name: str
    protocol: dict
    variants: dict[str, dict]  # variant → its own protocol
    values: dict[str, dict[str, dict[str, dict[str, float]]]]  # variant → system → metric → query → value


def digest_of(parts: Iterable[object]) -> str:
    """Sixteen hexadecimal digits that two equal sequences share."""
    return hashlib.sha256(json.dumps(list(parts), ensure_ascii=False, default=str).encode()).hexdigest()[:16]


def protocol_of(
    queries: pa.Table, product_ids: list[str], grades: np.ndarray, k: int, recall_k: int, relevant: float
) -> dict:
    """What two evaluations must share to be compared: settings, and digests of queries, catalogue and judgments.

    Args:
        queries: QUERY [Q]; product_ids [N] of the catalogue; grades [Q, N].
    """
    asked = sorted((q["query_id"], q["text"], q["image"], q["audio"]) for q in _keys(queries))
    ids = queries["query_id"].to_pylist()
    judged = sorted(
        (ids[row], product_ids[column], float(grades[row, column])) for row, column in np.argwhere(grades > 0).tolist()
    )
    return {
        "k": k,
        "recall_k": recall_k,
        "relevant": relevant,
        "queries": digest_of(asked),
        "catalogue": digest_of(sorted(product_ids)),
        "judgments": digest_of(judged),
    }


def open_evaluated(folder: Path) -> Evaluated:
    """A finished evaluate/ folder.

    Raises:
        EvaluationError: it is none, or of a version that wrote no protocol.
    """
    file = folder / "metrics.json"
    queries, users = folder / "per_query.parquet", folder / "per_user.parquet"
    if not file.is_file() or not (queries.is_file() or users.is_file()):
        raise EvaluationError(f"{folder} holds no evaluation.", "Run `fuserank evaluate` with that run's config first.")
    metrics = json.loads(file.read_text(encoding="utf-8"))
    if "protocol" not in metrics:
        raise EvaluationError(
            f"{folder} was evaluated by an older fuserank, which did not record what it asked.",
            "Run `fuserank evaluate` with that run's config again.",
        )
    variants = {name: found["protocol"] for name, found in metrics["variants"].items()}
    values = _values(pq.read_table(queries), "query_id") if queries.is_file() else {}
    if users.is_file():
        table = pq.read_table(users).drop_columns(["rank"])
        named = table.append_column("variant", pa.array([RECOMMENDATION] * table.num_rows))
        values |= _values(named, "user_id")
        variants[RECOMMENDATION] = {"users": digest_of(sorted(set(table["user_id"].to_pylist())))}
    return Evaluated(metrics["run"]["name"], metrics["protocol"], variants, values)


def compare_runs(ours: Evaluated, theirs: Evaluated, samples: int, seed: int) -> dict:
    """Paired differences ours − theirs of every system and metric both have, on the same queries.

    Returns:
        {"run", "against", "left_out": [reason], "variants": {variant: {system: {metric: {"ours", "theirs", "mean",
        "low", "high", "n", "excludes_zero", "p", "p_holm"}}}}}; Holm corrects over the metrics of one system.

    Raises:
        EvaluationError: protocol, queries, catalogue or judgments differ; the message names which.
    """
    differing = _differences(ours.protocol, theirs.protocol)
    if differing:
        raise EvaluationError(
            f"{ours.name} and {theirs.name} were not asked the same: {'; '.join(differing)}.{_ids(ours, theirs)}",
            "Evaluate both on the same preprocess/ and with the same `evaluate` section.",
        )
    left_out, variants = [], {}
    for name, protocol in ours.variants.items():
        if name not in theirs.variants:
            left_out.append(f"{name}: only {ours.name} has it")
        elif reasons := _differences(protocol, theirs.variants[name]):
            left_out.append(f"{name}: {'; '.join(reasons)}")
        else:
            variants[name] = _compare(ours.values[name], theirs.values[name], name, samples, seed)
    return {"run": ours.name, "against": theirs.name, "left_out": left_out, "variants": variants}


def _compare(ours: dict, theirs: dict, variant: str, samples: int, seed: int) -> dict:
    found = {}
    for system in (system for system in ours if system in theirs):
        rows = {}
        for metric in (metric for metric in ours[system] if metric in theirs[system]):
            mine, other = ours[system][metric], theirs[system][metric]
            queries = sorted(mine)
            a, b = (np.array([values[query] for query in queries], dtype=np.float64) for values in (mine, other))
            drawn = seed_of(seed, variant, metric)
            difference = paired_difference(a, b, samples, seed=drawn)
            rows[metric] = {
                "ours": _mean(a),
                "theirs": _mean(b),
                **difference.as_dict(),
                "excludes_zero": difference.excludes_zero,
                "p": paired_test(a, b, seed=drawn),
            }
        corrected = holm([row["p"] for row in rows.values()])
        for row, p in zip(rows.values(), corrected, strict=True):
            row["p"], row["p_holm"] = rounded(row["p"]), rounded(p)
        found[system] = rows
    return found


def _values(table: pa.Table, key: str) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """variant → system → metric → query or user → value, NaN where it has none."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for row in table.to_pylist():
        system = found.setdefault(row.pop("variant"), {}).setdefault(row.pop("system"), {})
        name = row.pop(key)
        for metric, value in row.items():
            system.setdefault(metric, {})[name] = float("nan") if value is None else value
    return found


def _differences(ours: Mapping, theirs: Mapping) -> list[str]:
    """Which settings differ, with both values; of digests only that they do."""
    return [
        f"{name} differ"
        if isinstance(ours.get(name), str)
        else f"{name} {ours.get(name)} here, {theirs.get(name)} there"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]


def _ids(ours: Evaluated, theirs: Evaluated) -> str:
    """Queries that only one of them asked."""
    both = []
    for side in (ours, theirs):
        first = next(iter(next(iter(side.values.values())).values()))
        both.append(set(next(iter(first.values()))))
    parts = [(ours.name, sorted(both[0] - both[1])), (theirs.name, sorted(both[1] - both[0]))]
    return "".join(f" Only {name}: {', '.join(ids[:3])} ({len(ids)})." for name, ids in parts if ids)


def _keys(queries: pa.Table) -> list[dict]:
    rows = queries.select(["query_id", "text", "image", "audio"]).to_pylist()
    return [{name: value or "" for name, value in row.items()} for row in rows]


def _mean(values: np.ndarray) -> float | None:
    counted = values[~np.isnan(values)]
    return rounded(float(counted.mean())) if len(counted) else None
