"""`fuserank feedback` on a run's store: joined tables, click rates, and a clear word when there is nothing yet."""

import json

import pyarrow.parquet as pq
import pytest

from fuserank.artifacts import MANIFEST, stage_path, write_json
from fuserank.config import Experiment, Storage
from fuserank.errors import MissingStageError
from fuserank.feedback.joins import JOINED
from fuserank.records.schema import EVENT
from fuserank.store.database import Database, run_database
from workloads import feedback


@pytest.fixture
def experiment(tmp_path) -> Experiment:
    experiment = Experiment(name="shop", storage=Storage(root=str(tmp_path / "runs")))
    folder = stage_path(experiment, "index")
    folder.mkdir(parents=True)
    write_json(folder / MANIFEST, {"digest": "x"})
    return experiment


def test_without_an_index(tmp_path):
    with pytest.raises(MissingStageError, match="fuserank index"):
        feedback.run(Experiment(storage=Storage(root=str(tmp_path))))


def test_no_events_yet(experiment, capsys):
    manifest = feedback.run(experiment)
    assert manifest["summary"]["events"] == 0
    assert "No events yet" in capsys.readouterr().out
    assert pq.read_table(stage_path(experiment, "feedback") / "joined.parquet").schema == JOINED
    assert not run_database(experiment.run)[0].exists()


def test_events_join_and_later_ones_are_picked_up(experiment, capsys):
    with Database(run_database(experiment.run)[1]) as database:
        database.add_impressions(
            [{"request_id": f"r{i}", "kind": "search", "product_ids": ["a", "b"]} for i in range(4)]
        )
        database.add_events([{"type": "click", "product_id": "a", "request_id": "r0", "event_id": "1"}])
        feedback.run(experiment)
        database.add_events([{"type": "click", "product_id": "a", "request_id": "r1", "event_id": "2"}])
        database.add_events([{"type": "click", "product_id": "a", "request_id": "unknown", "event_id": "3"}])
    summary = feedback.run(experiment)["summary"]
    folder = stage_path(experiment, "feedback")
    assert (summary["events"], summary["joined"], summary["unknown_request"]) == (3, 2, 1)
    assert summary["rates"][0] == {
        "kind": "search", "position": 0, "shown": 4, "clicked": 2, "purchased": 0, "click_rate": 0.5,
    }  # fmt: skip
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert pq.read_table(folder / "joined.parquet").num_rows == 8
    assert pq.read_table(folder / "events.parquet").schema.equals(EVENT)
    assert pq.read_table(folder / "orphans.parquet").column("event_id").to_pylist() == ["3"]
    assert "0.500" in capsys.readouterr().out
