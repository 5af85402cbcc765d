"""`fuserank demo`: the real stages, one after the other, on the generated shop; then the service is asked and answered.

The stages are the same functions that `fuserank preprocess`, `fuserank train` … run; nothing here is demo-only but the
questions. `tune` writes best.yaml, and that experiment is what `train` and everything after it run on.
"""

import base64
import os
import time
import uuid

import httpx
import pyarrow.parquet as pq
from rich.panel import Panel
from rich.table import Table

from fuserank import config
from fuserank.artifacts import stage_folder
from fuserank.config import Experiment
from serve.launcher import environment
from workloads import evaluate, feedback, generate, index, preprocess, pretrain, serve, train, tune
from workloads.cluster import connect
from workloads.progress import console


def run(experiment: Experiment, stay: bool = True) -> None:
    """Run every stage that is not up to date, serve, ask, and serve on until Ctrl-C if `stay`."""
    begin = time.monotonic()
    with connect(environment(experiment.serve)):
        for stage in (generate, preprocess, pretrain, tune):
            stage.run(experiment)
        chosen = config.load(stage_folder(experiment, "tune") / "best.yaml")
        for stage in (train, index, evaluate):
            stage.run(chosen)
        console.print(_figures(chosen))
        running = serve.start(chosen)
        try:
            console.print(f"serving at {running.url} after {time.monotonic() - begin:.0f} s")
            ask(running.url, chosen)
            feedback.run(chosen)
            report = stage_folder(chosen, "evaluate") / "report.html"
            console.print(f"report: {report}\nstorefront: {running.url}/   API: {running.url}/docs")
            if stay:
                console.print("Ctrl-C ends it.")
                serve.wait()
        finally:
            running.stop()


def _figures(experiment: Experiment) -> Table:
    """The headline of the evaluation: every system on held-out queries."""
    import json

    metrics = json.loads((stage_folder(experiment, "evaluate") / "metrics.json").read_text(encoding="utf-8"))
    first = next(iter(metrics["variants"].values()))
    table = Table(title="held-out queries, full catalogue")
    for column in ("system", "nDCG@10", "95 % interval"):
        table.add_column(column)
    for name, values in first["systems"].items():
        found = values["ndcg@10"]
        table.add_row(name, f"{found['mean']:.3f}", f"{found['low']:.3f} – {found['high']:.3f}")
    return table


def _questions(experiment: Experiment) -> dict[str, dict]:
    """A held-out query of each kind, as request bodies."""
    folder = stage_folder(experiment, "preprocess")
    queries = [q for q in pq.read_table(folder / "queries.parquet").to_pylist() if q["split"] == "evaluation"]

    def picture(query: dict) -> str:
        name = query["image"]
        return base64.b64encode((folder / "media" / name[:2] / name).read_bytes()).decode()

    text = next(q for q in queries if q["text"] and not q["image"])
    found: dict[str, dict] = {"text": {"text": text["text"]}}
    if (image := next((q for q in queries if q["image"] and not q["text"]), None)) is not None:
        found["picture"] = {"image": picture(image)}
    if (mixed := next((q for q in queries if q["image"] and q["text"]), None)) is not None:
        found["picture and text"] = {"text": mixed["text"], "image": picture(mixed)}
    found["filtered"] = {"text": text["text"], "filter": {"and": [{"price": {"lte": 40}}, {"in_stock": True}]}}
    return found


def ask(url: str, experiment: Experiment) -> None:
    """Ask one question of each kind over HTTP, print the answers, and send what a user might do with them."""
    key = os.environ.get("FUSERANK_API_KEY")  # where the run's service has keys already
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
        user, answer = f"demo-{uuid.uuid4().hex[:8]}", {"hits": [], "request_id": ""}
        for kind, body in _questions(experiment).items():
            answer = _post(client, "/v1/search", {**body, "user_id": user, "limit": 5, "explain": True})
            asked = body.get("text", "")
            extra = f"  filter {body['filter']}" if "filter" in body else ""
            console.print(_answer(f"{kind}: {asked!r}{extra}" if asked else kind, answer))
        events = [
            {
                "event_id": uuid.uuid4().hex,
                "type": kind,
                "user_id": user,
                "product_id": hit["product_id"],
                "request_id": answer["request_id"],
                "position": place,
                "timestamp": int(time.time() * 1000) + place,
            }
            for place, (hit, kind) in enumerate(zip(answer["hits"], ("click", "add_to_cart", "purchase"), strict=False))
        ]
        outcome = _post(client, "/v1/events", events)
        console.print(f"events: {outcome['accepted']} accepted, {len(outcome['rejected'])} rejected")
        console.print(
            _answer("recommended after these events", _post(client, "/v1/recommend", {"user_id": user, "limit": 5}))
        )


def _post(client: httpx.Client, path: str, body: object) -> dict:
    answer = client.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def _answer(title: str, answer: dict) -> Panel:
    table = Table(box=None, padding=(0, 2))
    for column in ("#", "product", "price", "score", "why"):
        table.add_column(column)
    for place, hit in enumerate(answer["hits"], 1):
        price = hit.get("price")
        shown = f"{price['amount']:.2f} {price['currency'] or ''}" if price else "–"
        shares = (hit.get("explanation") or {}).get("contributions") or {}
        why = "  ".join(f"{m} {share:+.2f}" for m, share in shares.items() if share)
        table.add_row(
            str(place), hit.get("title") or f"({hit['product_id']}, no text)", shown, f"{hit['score']:.2f}", why
        )
    return Panel(table, title=title, subtitle=f"{answer['took_ms']:.0f} ms · generation {answer['generation']}")
