"""`fuserank generations`: shows a run's generations, activates one or rolls back while the service runs, compares two.

Reads index/ and the store; writes the store's generations, which the service follows by itself: it makes the generation
ready on every replica and answers from it then.
"""

import time
from typing import Any

from rich.table import Table

from fuserank.config import Experiment
from fuserank.errors import InputError, ServeError
from fuserank.retrieval.generation import current_folder
from fuserank.store.database import Database, kept_database
from serve.app import index_folder, store_url
from serve.generations import ask_for, listing, previous
from workloads.progress import console, say

POLL_SECONDS = 0.3
NOTICE_SECONDS = 15.0  # by then some replica of a running service has said something


def show(experiment: Experiment) -> list[dict[str, Any]]:
    """Print the generations on disk, oldest first. Raises StoreError."""
    with Database(store_url(experiment)) as database:
        found = listing(database, index_folder(experiment))
    table = Table("generation", "state", "products", "made", "note")
    for row in found:
        note = f"not activated: {row['reason']}" if row["reason"] else ""
        table.add_row(row["id"], row["state"], f"{row['products']:,}", row["created"], note)
    console.print(table)
    return found


def incumbent(experiment: Experiment) -> str:
    """Id of the generation that answers: a service's, else the newest. Raises MissingStageError."""
    newest = current_folder(index_folder(experiment)).name
    if (database := kept_database(experiment)) is None:
        return newest
    with database:
        return next((row.id for row in database.generations() if row.state == "active"), newest)


def activate(experiment: Experiment, identity: str) -> None:
    """Have the running service answer from a generation; returns once it does.

    Raises:
        InputError: there is none of this id. ServeError: no service runs, or it refused.
        StoreError: the database failed.
    """
    with Database(store_url(experiment)) as database:
        index = index_folder(experiment)
        ask_for(database, index, identity)
        say(f"generations: making {identity} ready")
        begin = time.monotonic()
        while True:
            row = next(row for row in database.generations() if row.id == identity)
            if row.state == "active":
                say(f"generations: {identity} answers after {time.monotonic() - begin:.1f} s")
                return
            if row.state != "warming":
                raise ServeError(f"{identity} was not activated: {row.reason}", "The one before goes on answering.")
            if time.monotonic() - begin > NOTICE_SECONDS and not database.generation_parts(identity):
                database.refuse_generation(identity, "no service was running")
                raise ServeError(
                    "no service of this run is running.",
                    "`fuserank serve` starts one; it answers from the newest.",
                )
            time.sleep(POLL_SECONDS)


def rollback(experiment: Experiment) -> None:
    """Activate the generation that answered before. Raises as `activate`."""
    with Database(store_url(experiment)) as database:
        identity = previous(database, index_folder(experiment))
    activate(experiment, identity)


def compare(experiment: Experiment, new: str, old: str | None, queries: int) -> dict[str, Any]:
    """What users would see change: the run's logged queries, asked of both generations.

    Args:
        old: the active one if not given.

    Raises:
        InputError: there is no such generation, or nothing to ask. StoreError: the database failed.
    """
    from workloads.comparison import compared

    index = index_folder(experiment)
    with Database(store_url(experiment)) as database:
        known = {row["id"]: row["active"] for row in listing(database, index)}
        texts = [text for text, _ in database.logged_queries(queries)]
    old = old or next((identity for identity, active in known.items() if active), None)
    for identity in (old, new):
        if identity not in known:
            raise InputError(f"there is no generation {identity!r}.", "`fuserank generations list` shows them.")
    if not texts:
        raise InputError("no search by text is in the log yet.", "Serve it for a while, then compare.")
    assert old is not None
    found = compared(
        index / "generations" / old,
        index / "generations" / new,
        texts,
        experiment.index.candidates,
        experiment.index.rerank_depth,
    )
    _print(found)
    return found


def _print(found: dict[str, Any]) -> None:
    table = Table("", found["old"]["id"], found["new"]["id"], title=f"{found['queries']} logged queries")
    for name in ("p50_ms", "p99_ms"):
        table.add_row(f"{name[:3]} of a search, ms", *(f"{found[side][name]:.2f}" for side in ("old", "new")))
    console.print(table)
    say(f"overlap@10: mean {found['overlap@10']:.3f}; {found['unchanged']} queries show the same ten in the same order")
    movers = Table("query", "product", "place before", "place after", title="what moved most")
    for row in found["movers"]:
        places = ["beyond" if row[side] is None else str(row[side]) for side in ("before", "after")]
        movers.add_row(row["query"][:60], f"{row['product_id']} {row['title'] or ''}"[:60], *places)
    console.print(movers)
