"""What was served, as preprocess reads it beside the shop's own records (`records.served`; feedback/served.py).

A typed query that the shop's own queries already hold is that query, so that one that is held out stays held out: what
users clicked for it teaches nothing.
"""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fuserank.errors import InputError
from fuserank.feedback.served import Served, query_key
from fuserank.records.queries import STAGED_QUERY
from fuserank.records.schema import EVENT, JUDGMENT
from fuserank.records.splits import TRAINING

TABLES = ("events", "queries", "judgments")


def write_served(served: Served, folder: Path) -> None:
    """Write its three tables."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TABLES:
        pq.write_table(getattr(served, name), folder / f"{name}.parquet")


def read_served(folder: str | None) -> Served | None:
    """Raises InputError: there is no such folder, or a file is missing."""
    if folder is None:
        return None
    try:
        return Served(*(pq.read_table(Path(folder) / f"{name}.parquet") for name in TABLES))
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"records.served: {error}", "`fuserank iterate` writes that folder; leave it out.") from error


def with_queries(
    served: Served | None, asked: pa.Table, judged: pa.Table, known: Mapping[str, str]
) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """STAGED_QUERY and JUDGMENT with those served, and served id → id in them.

    Args:
        known: variants.known_ids of the products.
    """
    if served is None:
        return asked, judged, {}
    own: dict[str, tuple[str, str]] = {}
    for query, text, split in zip(*(asked[c].to_pylist() for c in ("query_id", "text", "split")), strict=True):
        if text and (query_key(text) not in own or split != TRAINING):  # held out anywhere is held out
            own[query_key(text)] = (query, split)
    ids = {query: own[query][0] if query in own else query for query in served.queries["query_id"].to_pylist()}
    new = [row for row in served.queries.to_pylist() if row["query_id"] not in own]
    staged = [{**row, "source": "served", "position": place} for place, row in enumerate(new)]
    asked = pa.concat_tables([asked, pa.Table.from_pylist(staged, STAGED_QUERY)]).sort_by("query_id")
    pairs = set(zip(judged["query_id"].to_pylist(), judged["product_id"].to_pylist(), strict=True))
    more: dict[tuple[str, str], float] = {}
    for row in served.judgments.to_pylist():
        pair = ids[row["query_id"]], known.get(row["product_id"], "")
        teaches = row["query_id"] not in own or own[row["query_id"]][1] == TRAINING
        if teaches and pair[1] and pair not in pairs:  # what the shop itself has judged, stands
            more[pair] = max(row["grade"], more.get(pair, 0.0))
    rows = [{"query_id": query, "product_id": product, "grade": grade} for (query, product), grade in more.items()]
    judged = pa.concat_tables([judged, pa.Table.from_pylist(rows, JUDGMENT)])
    return asked, judged.sort_by([("query_id", "ascending"), ("product_id", "ascending")]), ids


def with_events(
    served: Served | None, events: pa.Table, known: Mapping[str, str], queries: Mapping[str, str]
) -> pa.Table:
    """EVENT in time order, with those served about products that there are; one that the shop has too counts once."""
    if served is None:
        return events
    had = set(events["event_id"].to_pylist())
    rows = [
        {
            **row,
            "product_id": known[row["product_id"]],
            "query_id": queries.get(row["query_id"], row["query_id"]),
        }
        for row in served.events.to_pylist()
        if row["product_id"] in known and row["event_id"] not in had
    ]
    return pa.concat_tables([events, pa.Table.from_pylist(rows, EVENT)]).sort_by("timestamp")
