"""Answers of a uniform policy and the clicks they got, as `fuserank feedback` and `fuserank policy` read them."""

import numpy as np

from fuserank.artifacts import MANIFEST, stage_path, write_json
from fuserank.config import Experiment, Policy, Storage
from fuserank.feedback.policies.build import build_policy
from fuserank.feedback.policies.state import LinearState
from fuserank.feedback.slate_log import encode_features
from fuserank.store.database import Database, run_database
from workloads import feedback

NAMES = ("bias", "liked")
ANSWERS = 600


def experiment_below(root) -> Experiment:
    """A run whose index is finished, for `serve`."""
    settings = Policy(effective=50, bootstrap=200, samples=32)
    experiment = Experiment(name="shop", storage=Storage(root=str(root)), policy=settings)
    folder = stage_path(experiment, "index")
    folder.mkdir(parents=True)
    write_json(folder / MANIFEST, {"digest": "x"})
    return experiment


def serve(experiment: Experiment) -> None:
    """A uniform policy answers; products with `liked` are clicked four times as often."""
    random, server = np.random.default_rng(0), build_policy("linucb", LinearState(NAMES), share=1.0)
    impressions, events = [], []
    for number in range(ANSWERS):
        features = np.stack([np.ones(5), random.integers(0, 2, 5)], axis=1).astype(float)
        slates = server.choose(features[None], np.array([number]), 2)
        request = f"r{number}"
        impressions.append(
            {
                "request_id": request, "kind": "recommend", "candidate_ids": list("abcde"), "policy": server.name,
                "product_ids": ["abcde"[row] for row in slates.rows[0]],
                "propensities": slates.propensities[0].tolist(),
                "slate_propensity": float(slates.slate_propensity[0]), "features": encode_features(NAMES, features),
                "timestamp": 1_750_000_000_000 + number * 1000,
            }
        )  # fmt: skip
        for row in slates.rows[0]:
            if random.random() < 0.15 + 0.45 * features[row, 1]:
                events.append({"event_id": f"{number}-{row}", "type": "click", "product_id": "abcde"[row],
                               "request_id": request})  # fmt: skip
    impressions.append({"request_id": "plain", "kind": "search", "product_ids": ["a"]})
    with Database(run_database(experiment.run)[1]) as database:
        assert database.add_impressions(impressions).rejected == []
        assert database.add_events(events).rejected == []
    feedback.run(experiment)
