"""What `preprocess` tells of a run: rows in and out by table, and which modalities the products lack."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from rich.table import Table

from fuserank.records.quarantine import Quarantine
from fuserank.records.schema import MODALITIES
from workloads.progress import console, say


def row_counts(aside: Mapping[str, Quarantine], out: Mapping[str, int]) -> dict[str, Any]:
    """Of each table: rows in, out, merged, repeated and in quarantine, and the reasons."""
    return {
        name: {
            "in": part.rows_in,
            "out": out[name],
            "merged": part.merged,
            "repeated": part.repeated,
            "quarantined": part.rows,
            "reasons": part.counts(),
        }
        for name, part in aside.items()
    }


def missing_table(present: pa.Table) -> dict[str, Any]:
    """How many products lack each modality, and how many have each combination, from one bool column a modality."""
    combined: Counter[str] = Counter()
    groups = present.group_by(list(MODALITIES)).aggregate([([], "count_all")]).to_pylist()
    for group in groups:
        combined["+".join(m for m in MODALITIES if group[m]) or "none"] += group["count_all"]
    without = {m: sum(group["count_all"] for group in groups if not group[m]) for m in MODALITIES}
    return {"products": present.num_rows, "without": without, "combinations": dict(combined.most_common())}


def value_counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value occurs; nulls are left out."""
    return dict(sorted(Counter(value for value in column.to_pylist() if value is not None).items()))


def show(summary: dict[str, Any]) -> None:
    """Print a run's summary to the person at the terminal."""
    screen = Table("table", "in", "out", "merged", "repeated", "in quarantine", "reasons")
    for name, part in summary["rows"].items():
        reasons = ", ".join(f"{reason} ×{count}" for reason, count in part["reasons"].items())
        counts = (str(part[count]) for count in ("in", "out", "merged", "repeated", "quarantined"))
        screen.add_row(name, *counts, reasons)
    console.print(screen)
    missing = summary["missing"]
    processed = summary["processed"]
    say(f"products: {processed['anew']} processed, {processed['as before']} as in an earlier run")
    without = ", ".join(f"{name} {count}" for name, count in missing["without"].items())
    say(f"of {missing['products']} products, without: {without}")
