"""The shop's rules through HTTP: to users who are known, to strangers, and under a policy with exact chances."""

import math
from pathlib import Path

import pytest

from fuserank import config
from fuserank.errors import ConfigError
from tests.serve import shop
from tests.serve.test_moving import served


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> config.Experiment:
    return shop.build_run(tmp_path_factory.mktemp("rules"))


def hits(client, **asked) -> list[dict]:
    answer = client.post("/v1/recommend", json={"limit": 8, **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def test_rules_hold_for_users_and_for_strangers(experiment, tmp_path: Path):
    rules = {
        "boost": [{"filter": {"attributes.colour": "red"}, "by": 20}],
        "caps": {"attributes.colour": 2},
        "pins": [{"product_id": "p22", "place": 2}],
    }
    with served(config.update(experiment, {"serve.rules": rules}), tmp_path) as client:
        for asked in ({"product_ids": ["p01", "p05"]}, {}):
            found = hits(client, **asked)
            assert found[1]["product_id"] == "p22"
            others = [hit for hit in found if hit["product_id"] != "p22"]
            titles = [hit["title"] for hit in others]
            assert len(others) == 7
            assert "red" in titles[0]
            colours = [title.split()[0] for title in titles]
            assert max(colours.count(colour) for colour in colours) == 2
        filtered = hits(client, product_ids=["p01"], filter={"brand": "Acme"})
        assert "p22" not in [hit["product_id"] for hit in filtered]  # a Nord


def test_under_a_policy_slates_keep_the_caps_and_chances_stay_exact(experiment, tmp_path: Path):
    sets = {
        "serve.rules": {"caps": {"attributes.colour": 1}, "diversity": 0.3},
        "policy.online": {"kind": "epsilon_greedy", "candidates": 20, "fresh": 5},
        "policy.share": 1.0,
    }
    pool = 4  # colours: so many the caps leave of all candidates
    with served(config.update(experiment, sets), tmp_path) as client:
        for _ in range(20):
            found = hits(client, product_ids=["p01"], limit=3)
            assert len({hit["title"].split()[0] for hit in found}) == len(found) == 3
            assert all(math.isclose(hit["propensity"], 1 / pool) for hit in found)


def test_pins_and_a_policy_of_recommendations_are_refused(experiment):
    sets = {"serve.rules.pins": [{"product_id": "p22"}], "policy.online": {"scenarios": ["recommend"]}}
    with pytest.raises(ConfigError, match="do not go together"):
        config.update(experiment, sets)
    config.update(experiment, sets | {"policy.online": {"scenarios": ["search"]}})
