"""Events over HTTP: how many a second the service accepts, durable before each answer, and how long answers take.

A finished demo is served (`--demo`, its run folder) from a copy with a SQLite store of its own. First at a steady rate,
50 events a request, each request on its time whether or not those before it are answered; then as fast as 16
connections go. At the end the store is read: every acknowledged event has to be there, once.

Run: `python benchmarks/events.py [--demo runs/demo] [--rate 2000] [--seconds 30] [--json FILE]`.
"""

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from serving import ROOT, side
from serving_load import exchange
from serving_shop import write_run

from fuserank import config
from fuserank.retrieval.generation import current_generation
from fuserank.store.database import Database, run_database

AT_ONCE = 50  # events of a request
CONNECTIONS = 16
USERS = 5000
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Sent:
    """What one load saw."""

    seconds: float = 0.0
    answers: list[float] = field(default_factory=list)  # seconds that each took
    acknowledged: list[str] = field(default_factory=list)  # event ids
    refused: int = 0  # requests with another status than 200

    @property
    def per_second(self) -> float:
        return len(self.acknowledged) / self.seconds

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        return float(np.percentile(self.answers, share) * 1000)


class Sender:
    """Asks one service; events are of many users, on products that there are."""

    def __init__(self, port: int, products: list[str]):
        self._port, self._products, self._numbers = port, products, itertools.count()

    async def steady(self, rate: float, seconds: float) -> Sent:
        """So many events a second, in requests that begin on time."""
        sent, begin, tasks = Sent(), time.perf_counter(), []
        free: asyncio.Queue = asyncio.Queue()
        for _ in range(CONNECTIONS * 4):
            free.put_nowait(await asyncio.open_connection("127.0.0.1", self._port))
        for number in range(int(rate * seconds / AT_ONCE)):
            await asyncio.sleep(max(0.0, begin + number * AT_ONCE / rate - time.perf_counter()))
            tasks.append(asyncio.create_task(self._timed(free, sent)))
        await asyncio.gather(*tasks)
        sent.seconds = time.perf_counter() - begin
        return sent

    async def full(self, seconds: float) -> Sent:
        """As fast as CONNECTIONS go."""
        sent, begin = Sent(), time.perf_counter()

        async def client() -> None:
            streams = await asyncio.open_connection("127.0.0.1", self._port)
            while time.perf_counter() < begin + seconds:
                await self._post(streams, sent, time.perf_counter())
            streams[1].close()

        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
        sent.seconds = time.perf_counter() - begin
        return sent

    async def _timed(self, free: asyncio.Queue, sent: Sent) -> None:
        due = time.perf_counter()  # waiting for a connection counts
        streams = await free.get()
        try:
            await self._post(streams, sent, due)
        finally:
            free.put_nowait(streams)

    async def _post(self, streams: Streams, sent: Sent, due: float) -> None:
        number = next(self._numbers)
        events = [
            {
                "event_id": f"e{number}-{place}",
                "type": "click" if place % 5 else "purchase",
                "user_id": f"u{(number * AT_ONCE + place) % USERS}",
                "product_id": self._products[(number * 7 + place) % len(self._products)],
            }
            for place in range(AT_ONCE)
        ]
        status, body = await exchange(streams[0], streams[1], "/v1/events", events)
        sent.answers.append(time.perf_counter() - due)
        if status == 200 and json.loads(body)["accepted"] == AT_ONCE:
            sent.acknowledged += [event["event_id"] for event in events]
        else:
            sent.refused += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=ROOT / "runs" / "demo")
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        experiment = write_run(options.demo, Path(scratch), 2000)
        file = Path(scratch) / "events.yaml"
        config.dump(experiment, file)
        products = current_generation(experiment.run / "index").catalogue.ids
        with side("ours", file, Path(scratch) / "ours.log") as port:
            sender = Sender(port, products)
            asyncio.run(sender.steady(options.rate, 3.0))
            loads = {f"steady {options.rate:.0f}/s": asyncio.run(sender.steady(options.rate, options.seconds))}
            loads[f"{CONNECTIONS} connections"] = asyncio.run(sender.full(options.seconds))
        with Database(run_database(experiment.run)[1]) as database:
            stored = Counter(database.read_events().column("event_id").to_pylist())
    lost = sum(name not in stored for sent in loads.values() for name in sent.acknowledged)
    twice = sum(count > 1 for count in stored.values())
    _print(loads, lost, twice)
    if options.json:
        found = {
            name: {
                "per_second": sent.per_second,
                "refused": sent.refused,
                "p50_ms": sent.percentile(50),
                "p99_ms": sent.percentile(99),
            }
            for name, sent in loads.items()
        }
        options.json.write_text(json.dumps(found | {"lost": lost, "twice": twice}, indent=1), encoding="utf-8")
    if lost or twice:
        raise SystemExit("events were lost or stored twice")


def _print(loads: dict[str, Sent], lost: int, twice: int) -> None:
    table = Table("load", "events/s accepted", "requests", "refused", "p50 ms", "p99 ms")
    for name, sent in loads.items():
        cells = [f"{sent.per_second:,.0f}", str(len(sent.answers)), str(sent.refused)]
        table.add_row(name, *cells, *(f"{sent.percentile(share):.1f}" for share in (50, 99)))
    Console().print(table)
    Console().print(f"acknowledged and not in the store: {lost}; stored twice: {twice}")


if __name__ == "__main__":
    main()
