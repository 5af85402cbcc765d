"""`fuserank generations`: what would change, and refusals that name the remedy."""

import time
from pathlib import Path

import numpy as np
import pytest

from fuserank.config import Experiment
from fuserank.errors import InputError, ServeError
from fuserank.store.database import Database
from serve.app import generation_folder, index_folder, store_url
from serve.generations import adopt
from tests.serve import shop
from workloads import comparison, generations
from workloads.index import answering

NOW = 1_780_000_000_000
QUERIES = ["red shoe", "blue hat", "green watch", "black bag of leather"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Three generations: one that answers, one with other ids, one with the same ids and one vector turned round."""
    made = shop.build_run(tmp_path_factory.mktemp("generations"))
    assert answering(made) == []
    shop.add_generation(made, "q")
    with Database(store_url(made)) as database:
        adopt(database, index_folder(made), newest=False)
        rows = [
            {"request_id": f"r{n}", "kind": kind, "query": query, "product_ids": [], "timestamp": NOW + n}
            for n, (kind, query) in enumerate([("search", q) for q in [*QUERIES, QUERIES[0]]] + [("similar", "p01")])
        ]
        database.add_impressions(rows)
        assert database.logged_queries(9) == [(QUERIES[0], 2), *((q, 1) for q in QUERIES[:0:-1])]
    return made


def second(experiment: Experiment) -> str:
    return max(path.name for path in (index_folder(experiment) / "generations").iterdir())


def test_the_one_that_answers_is_never_pruned(experiment: Experiment):
    assert answering(experiment) == [generation_folder(experiment).name]


def test_the_same_products_by_other_ids_have_nothing_in_common(experiment: Experiment):
    found = generations.compare(experiment, second(experiment), None, 200)
    assert (found["queries"], found["overlap@10"], found["unchanged"]) == (4, 0, 0)
    assert found["old"]["id"] == generation_folder(experiment).name
    assert all((row["before"] is None) != (row["after"] is None) for row in found["movers"])
    assert 0 < found["new"]["p50_ms"] <= found["new"]["p99_ms"]


def test_a_generation_beside_itself_moves_nothing(experiment: Experiment):
    name = generation_folder(experiment).name
    found = generations.compare(experiment, name, name, 2)
    assert (found["queries"], found["overlap@10"], found["unchanged"], found["movers"]) == (2, 1, 2, [])


def test_what_moved_most_comes_first(monkeypatch: pytest.MonkeyPatch, experiment: Experiment):
    orders = {
        "old": {"x": list("abcdefghijkl"), "y": list("abcdefghij")},
        "new": {"x": list("lbcdefghijka"), "y": list("bacdefghij")},
    }

    class Fixed:
        def __init__(self, folder: Path, candidates: int):
            self.id, self.catalogue = folder.name, self
            self.rows: dict[str, int] = {}

        def search(self, text: str, depth: int) -> list[str]:
            time.sleep(0.002)
            return orders[self.id][text]

        def documents(self, rows: np.ndarray) -> list[dict]:
            return []

    monkeypatch.setattr(comparison, "Searching", Fixed)
    found = comparison.compared(Path("old"), Path("new"), ["x", "y"], 50, 50)
    assert found["overlap@10"] == pytest.approx((0.9 + 1.0) / 2)
    assert found["unchanged"] == 0
    moved = [(row["query"], row["product_id"], row["before"], row["after"]) for row in found["movers"]]
    assert moved == [("x", "a", 1, 12), ("x", "l", 12, 1), ("y", "a", 1, 2), ("y", "b", 2, 1)]
    assert found["new"]["id"] == "new"
    assert 2 <= found["new"]["p50_ms"] <= found["new"]["p99_ms"]


def test_refusals(experiment: Experiment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generations, "NOTICE_SECONDS", 0.5)
    with pytest.raises(InputError, match="there is no generation 'g9'"):
        generations.activate(experiment, "g9")
    with pytest.raises(InputError, match="no earlier generation"):
        generations.rollback(experiment)
    with pytest.raises(ServeError, match="no service of this run"):
        generations.activate(experiment, second(experiment))
    assert generations.show(experiment)[1]["reason"] == "no service was running"
    with pytest.raises(InputError, match="there is no generation 'g9'"):
        generations.compare(experiment, "g9", None, 3)
