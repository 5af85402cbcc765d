"""`fuserank policy --reranker` on logged searches: users like what has no price, and the reranker learns it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.artifacts import stage_path
from fuserank.config import Experiment
from fuserank.errors import PolicyError
from fuserank.feedback.estimators import Log, difference, estimate
from fuserank.feedback.gate import recorded
from fuserank.models.checkpoint import load_reranker
from fuserank.retrieval.generation import current_generation, generation_ids, read_manifest
from fuserank.store.database import Database, store_url
from serve.app import index_folder
from tests.serve import shop
from workloads import feedback, gradient
from workloads.gradient import ordered
from workloads.searching import Searching

ANSWERS, CANDIDATES, POSITIONS = 1200, 6, 2
LIKED, OTHER = 0.6, 0.15
TEXTS = ("red shoe", "blue hat", "watch", "Acme bag")


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = shop.build_run(tmp_path)
    own = {"effective": 50, "bootstrap": 200, "gradient": {"limit": 2.0, "learning_rate": 0.05, "epochs": 10}}
    return config.update(made, {"policy": made.policy.model_dump() | own})


def liked(experiment: Experiment) -> dict[str, bool]:
    products = current_generation(index_folder(experiment)).catalogue.products
    return {row["product_id"]: row["price"] is None for row in products.to_pylist()}


def serve(experiment: Experiment) -> list[dict]:
    """A uniform policy answers searches; what has no price is clicked four times as often."""
    random, taste = np.random.default_rng(0), liked(experiment)
    impressions, events = [], []
    for number in range(ANSWERS):
        candidates = random.choice(sorted(taste), CANDIDATES, replace=False).tolist()
        shown = random.choice(candidates, POSITIONS, replace=False).tolist()
        impressions.append(
            {
                "request_id": f"r{number}", "kind": "search", "query": TEXTS[number % len(TEXTS)],
                "candidate_ids": candidates, "product_ids": shown, "policy": "random@0", "features": "{}",
                "propensities": [1 / CANDIDATES] * POSITIONS, "timestamp": 1_750_000_000_000 + number * 1000,
            }
        )  # fmt: skip
        for product in shown:
            if random.random() < (LIKED if taste[product] else OTHER):
                event = {"event_id": f"{number}-{product}", "type": "click", "product_id": product}
                events.append(event | {"request_id": f"r{number}"})
    odd = impressions[0]
    impressions += [
        odd | {"request_id": "picture", "query": None},
        odd | {"request_id": "gone", "candidate_ids": [*odd["candidate_ids"], "sold-out"]},
        odd | {"request_id": "plain", "propensities": None},
        odd | {"request_id": "short", "product_ids": odd["product_ids"][:1], "propensities": [0.5]},
        odd | {"request_id": "recommended", "kind": "recommend"},
    ]
    with Database(store_url(experiment)) as database:
        assert database.add_impressions(impressions).rejected == []
        assert database.add_events(events).rejected == []
    feedback.run(experiment)
    return impressions[:ANSWERS]


def true_value(experiment: Experiment, folder: Path, answers: list[dict]) -> float:
    """What a generation's reranker, its order shown for 95 % of the answers, would really earn a position."""
    searching, taste, values = Searching(folder, experiment.index.candidates), liked(experiment), []
    requests = {text: searching.request(text) for text in TEXTS}
    for answer in answers:
        rows = np.array([searching.catalogue.rows[name] for name in answer["candidate_ids"]])
        seen = searching.seen(requests[answer["query"]], rows, [])
        with torch.no_grad():
            scores = searching.reranker(torch.from_numpy(seen.features)[None])[0].numpy()
        chances = np.array([LIKED if taste[name] else OTHER for name in answer["candidate_ids"]])
        values.append(0.95 * chances[np.argsort(-scores, kind="stable")[:POSITIONS]].mean() + 0.05 * chances.mean())
    return float(np.mean(values))


def test_the_tuned_reranker_is_estimated_and_goes_live(experiment: Experiment, capsys: pytest.CaptureFixture) -> None:
    answers = serve(experiment)
    index = index_folder(experiment)
    before = current_generation(index)
    summary = gradient.run(experiment)["summary"]
    assert (summary["answers"], summary["judged_on"]) == (ANSWERS, ANSWERS // 2)
    assert summary["left_out"] == {
        "no words": 1,
        "no propensities": 1,
        "another number of positions": 1,
        "a product that this generation lacks": 1,
    }
    assert 0 < summary["kl"] <= 2.0
    assert (summary["incumbent"], generation_ids(index)) == (before.id, [before.id])  # nothing goes live unasked
    assert gradient.run(experiment, promote=True)["summary"]["decision"]["promoted"]
    after = current_generation(index)
    assert after.manifest["variant_of"] == before.id
    assert after.manifest["model"] != before.manifest["model"]
    assert after.catalogue.ids == before.catalogue.ids
    np.testing.assert_array_equal(after.catalogue.vectors, before.catalogue.vectors)
    old, new = (load_reranker(g.model_folder, shop.MODALITIES).state_dict() for g in (before, after))
    assert any(not torch.equal(old[name], new[name]) for name in old)
    truth = {
        gradient.OLD: true_value(experiment, before.folder, answers[ANSWERS // 2 :]),
        gradient.NEW: true_value(experiment, after.folder, answers[ANSWERS // 2 :]),
    }
    assert truth[gradient.NEW] > truth[gradient.OLD] + 0.1
    for name, value in truth.items():
        found = summary["estimates"][name]["dr"]["bootstrap"]
        assert found["low"] < value < found["high"]
    gained = truth[gradient.NEW] - truth[gradient.OLD]
    assert summary["difference"]["low"] < gained < summary["difference"]["high"]
    assert "has the fine-tuned reranker" in " ".join(capsys.readouterr().err.split())
    html = (stage_path(experiment, "gradient") / "report.html").read_text()
    assert html.count("<img") == 1
    assert before.id in html
    assert "promoted" in html


def test_the_gate_refuses_and_remembers(experiment: Experiment) -> None:
    serve(experiment)
    before = current_generation(index_folder(experiment)).id
    strict = config.update(experiment, {"policy.margin": 0.5})
    decision = gradient.run(strict, promote=True)["summary"]["decision"]
    assert not decision["promoted"]
    assert "does not beat" in decision["reasons"][0]
    assert generation_ids(index_folder(experiment)) == [before]
    (line,) = recorded(stage_path(experiment, "gradient") / "decisions.jsonl")
    assert (line["incumbent"], line["promoted"]) == (before, False)
    assert line["evidence"]["difference"]["mean"] > 0


def test_nothing_was_served(experiment: Experiment, capsys: pytest.CaptureFixture) -> None:
    feedback.run(experiment)
    summary = gradient.run(experiment, promote=True)["summary"]
    assert summary["answers"] == 0
    assert "nothing was served yet" in summary["reason"]
    assert "policy.online.scenarios" in capsys.readouterr().err
    assert json.loads((stage_path(experiment, "gradient") / "estimates.json").read_text())["decision"] is None
    assert read_manifest(current_generation(index_folder(experiment)).folder).get("variant_of") is None


def test_chances_of_an_order_by_hand() -> None:
    scores, mask = np.array([[0.1, 0.9, 0.5], [3.0, 1.0, 9.0]]), np.array([[True, True, True], [True, True, False]])
    found = ordered(scores, mask, 2, 0.3)
    np.testing.assert_allclose(found[0], [[0.1, 0.1], [0.8, 0.1], [0.1, 0.8]])
    np.testing.assert_allclose(found[1], [[0.85, 0.15], [0.15, 0.85], [0, 0]])
    np.testing.assert_allclose(found.sum(1), 1)


def test_a_paired_difference_is_that_of_the_estimates_and_narrower() -> None:
    random = np.random.default_rng(0)
    rewards, one = random.integers(0, 2, (400, 3)).astype(float), random.random((400, 3)) * 2
    other = one + 0.01 * random.random((400, 3))
    shown = [np.full((400, 3), 0.4), np.full((400, 3), 0.5)]
    logs = [Log(rewards, weights, *shown) for weights in (one, other)]
    for method in ("ips", "clipped_ips", "snips", "dm", "dr", "switch_dr"):
        apart = [estimate(log, [method])[method] for log in logs]
        paired = difference(logs[1], logs[0], method)
        assert paired.mean == pytest.approx(apart[1].value - apart[0].value, abs=1e-12)
        if method != "dm":
            assert paired.high - paired.low < 0.1 * (apart[0].bootstrap.high - apart[0].bootstrap.low)
    with pytest.raises(PolicyError, match="same answers"):
        difference(logs[0], Log(1 - rewards, one), "ips")
