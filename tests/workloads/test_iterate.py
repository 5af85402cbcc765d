"""`fuserank iterate` end to end: too little new, a candidate that proves nothing, and one that goes live."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fuserank.retrieval.generation import current_generation
from fuserank.store.database import Database, run_database

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("records.generate.products=300", "records.generate.users=80", "records.generate.queries=480"),
    *("records.generate.speech=false", "encoders.audio=null", "pretrain.text.epochs=1", "pretrain.image.epochs=0"),
    *(
        "train.refine.steps=4",
        "train.recommend.epochs=2",
        "evaluate.bootstrap=300",
        "iterate.loss=0.05",
        "iterate.fewest=20",
    ),
)
WEAK = (
    "pretrain.text.epochs=0",
    "train.epochs=1",
    "train.learning_rate=1e-6",
    "train.encoder_learning_rate=1e-6",
    "index.hybrid=none",
)
STRONG = ("train.epochs=5",)


def call(root: Path, stage: str, *sets: str) -> str:
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}", "COLUMNS": "200"}
    chosen = [part for value in (f"storage.root={root}", *SMALL, *sets) for part in ("--set", value)]
    line = [sys.executable, "-m", "workloads", stage, "-c", "workloads/configs/demo.yaml", *chosen]
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def serve(run: Path, begin: int, end: int) -> None:
    """Answers of the generation that is there to queries nobody has judged, and clicks of two users on the first."""
    identity = current_generation(run / "index").id
    products = pq.read_table(run / "preprocess" / "products.parquet")
    titled = [row for row in products.select(["product_id", "title"]).to_pylist() if row["title"]]
    answers, events = [], []
    for number in range(begin, end):
        shown = [row["product_id"] for row in titled[number // 2 : number // 2 + 10]]
        request, who = f"r{number}", f"served{number % 7}"
        answers.append({"request_id": request, "kind": "search", "query": titled[number // 2]["title"].lower(),
                        "user_id": who, "product_ids": shown, "generation": identity})  # fmt: skip
        for kind in ("click", "add_to_cart"):
            events.append({"event_id": f"{request}-{kind}", "type": kind, "request_id": request, "user_id": who,
                           "product_id": shown[0]})  # fmt: skip
    with Database(run_database(run)[1]) as database:
        assert not database.add_impressions(answers).rejected
        assert not database.add_events(events).rejected


def test_iterations(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    for stage in ("generate", "preprocess", "pretrain", "train", "index", "evaluate"):
        call(tmp_path, stage, *WEAK)
    first = current_generation(run / "index").id
    serve(run, 0, 60)
    assert "120 events since the last iteration, 200 wanted" in call(tmp_path, "iterate", *WEAK)
    said = call(tmp_path, "iterate", *WEAK, "iterate.events=100", "iterate.margin=0.9")
    told = " ".join(said.split())
    assert "does not go live" in told
    assert "nothing is proven better by more than 0.9" in told
    assert current_generation(run / "index").id == first

    asked = pq.read_table(run / "iterate" / "candidate" / "preprocess" / "queries.parquet").to_pylist()
    learnt = [row for row in asked if row["group"] == "served"]
    assert learnt
    assert {row["split"] for row in learnt} == {"training"}
    judged = pq.read_table(run / "iterate" / "candidate" / "preprocess" / "judgments.parquet").to_pylist()
    assert {row["query_id"] for row in learnt} & {row["query_id"] for row in judged}
    events = pq.read_table(run / "iterate" / "candidate" / "preprocess" / "events.parquet").to_pylist()
    assert sum(row["event_id"].startswith("r") and row["type"] == "add_to_cart" for row in events) == 60

    serve(run, 60, 120)
    said = call(tmp_path, "iterate", *STRONG, "iterate.events=100")
    decisions = [json.loads(line) for line in (run / "iterate" / "decisions.jsonl").read_text().splitlines()]
    assert [line["promoted"] for line in decisions] == [False, True]
    figures = decisions[1]["evidence"]["figures"].values()
    assert max(row["low"] for row in figures) > 0, "one is proven better"
    assert min(row["mean"] for row in figures) > -0.05, "and none much worse (iterate.loss)"
    made = current_generation(run / "index")
    assert made.id == decisions[1]["candidate"] != first
    assert decisions[1]["incumbent"] == first
    assert made.manifest["media"] == str(run / "preprocess" / "media")
    assert "The next one started answers from" in said
    assert "iterate.events" in call(tmp_path, "iterate", *STRONG)  # nothing new since, and the new one is evaluated
