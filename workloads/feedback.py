"""Joins the live database's events to what was shown: `fuserank feedback -c FILE`.

Reads runs/<name>/store/fuserank.db; writes runs/<name>/feedback/: joined.parquet (one row a shown product),
impressions.parquet, events.parquet, orphans.parquet (events that fit no answer), summary.json and, where answers say
what a policy saw, click/ and report.html (clicks.py). The database goes on changing, so this stage is never up to date
and always runs.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from fuserank.artifacts import run_stage, write_json
from fuserank.config import Experiment
from fuserank.feedback.joins import join, rates
from fuserank.records.schema import EVENT, IMPRESSION
from fuserank.store.database import kept_database, run_database
from workloads import clicks
from workloads.erasing import without_erased

POSITIONS_SHOWN = 5  # on screen, of each kind; summary.json has all


def run(experiment: Experiment) -> dict:
    """Join what the store holds now; a store without events gives empty tables and says so.

    Returns:
        The stage's manifest; its summary has the counts and the click rates by kind and position.

    Raises:
        MissingStageError: there is no index yet, so nothing can have been served.
        StoreError: the database cannot be read.
    """
    return run_stage(experiment, "feedback", lambda folder: _join(experiment, folder), force=True)


def _join(experiment: Experiment, folder: Path) -> dict[str, Any]:
    events, impressions = EVENT.empty_table(), IMPRESSION.empty_table()
    if (database := kept_database(experiment)) is not None:
        with database:
            events, impressions = database.read_events(), database.read_impressions()
    joined = join(impressions, events)
    pq.write_table(joined.rows, folder / "joined.parquet")
    pq.write_table(impressions, folder / "impressions.parquet")
    pq.write_table(events, folder / "events.parquet")
    pq.write_table(joined.orphans, folder / "orphans.parquet")
    without_erased(experiment, folder)
    summary = {
        "impressions": impressions.num_rows,
        "shown": joined.rows.num_rows,
        "events": events.num_rows,
        **joined.events,
        "rates": rates(joined.rows),
        "clicks": clicks.fit(
            impressions, joined.rows, folder, experiment.name, experiment.seed, experiment.policy.bootstrap
        ),
    }
    write_json(folder / "summary.json", summary)
    _print(summary, run_database(experiment.run)[0])
    return summary


def _print(summary: dict[str, Any], file: Path) -> None:
    console = Console()
    if not summary["events"]:
        console.print(f"No events yet in {file}: start `fuserank serve` and post some to /v1/events.")
        return
    console.print(
        f"{summary['events']} events on {summary['impressions']} answers: {summary['joined']} joined, "
        f"{summary['without_request']} without a request, {summary['unknown_request']} of an unknown request, "
        f"{summary['not_shown']} on a product that was not shown"
    )
    table = Table("kind", "position", "shown", "clicked", "purchased", "click rate")
    for rate in summary["rates"]:
        if rate["position"] < POSITIONS_SHOWN:
            counts = [str(rate[name]) for name in ("position", "shown", "clicked", "purchased")]
            table.add_row(rate["kind"], *counts, f"{rate['click_rate']:.3f}")
    console.print(table)
