"""A policy on its way to all visitors, by the commands a shop uses and through Ray Serve: a worse one serves and is
logged, the gate lets a better one answer some visitors, and what these do decides."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from fuserank import config
from fuserank.store.database import Database
from fuserank.store.policies import ALL
from serve.app import store_url
from serve.policies import in_canary
from tests.serve import shop
from tests.serve.test_canaries import LOOKED_AT
from tests.serve.test_live_service import ROOT, service, wait_for

pytestmark = [pytest.mark.prove, pytest.mark.timeout(500)]
SETTINGS = {
    "policy.online": {"kind": "thompson", "candidates": 12},
    "policy.noise": 50.0,  # its draws are so wild that its slates are as good as random
    "policy.alpha": 0.0,
    "policy.promote": "linucb",
    "policy.effective": 100.0,
    "policy.canary": 0.5,
    "policy.watch_seconds": 0.5,
    "policy.settle_seconds": 2.0,
}


def command(file: Path, *words: str) -> str:
    """What a command of ours says."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'platform'}{os.pathsep}{ROOT}"}
    line = [sys.executable, "-m", "workloads", words[0], "-c", str(file), *words[1:]]
    done = subprocess.run(line, capture_output=True, text=True, env=environment, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def visit(http: httpx.Client, visitor: str, liked: set[str]) -> str:
    """A visitor clicks what they like of what they are recommended; the kind of policy that answered."""
    answer = http.post("/v1/recommend", json=LOOKED_AT | {"session_id": visitor}).json()
    about = {"type": "click", "request_id": answer["request_id"]}
    clicks = [about | {"product_id": hit["product_id"]} for hit in answer["hits"] if hit["product_id"] in liked]
    if clicks:
        assert http.post("/v1/events", json=clicks).json()["accepted"] == len(clicks)
    return answer["hits"][0]["policy"].partition("@")[0]


@pytest.mark.parametrize("better", [True, False])
def test_a_canary_from_the_gate_to_its_end(tmp_path: Path, better: bool):
    """Visitors like what the model finds best. In the second case they turn away from it once the canary answers."""
    file = tmp_path / "tiny.yaml"
    experiment = config.update(shop.build_run(tmp_path), SETTINGS)
    config.dump(experiment, file)
    report = experiment.run / "policy" / "report.html"
    with service(file, tmp_path / "log") as (http, _), Database(store_url(experiment)) as database:
        visit(http, "first", set())
        wait_for(lambda: database.read_impressions().num_rows > 0, 10)
        pool = database.read_impressions()["candidate_ids"][0].as_py()  # in the model's own order
        liked, others = set(pool[:5]), set(pool[5:])
        assert {visit(http, f"old{n}", liked) for n in range(1000)} == {"thompson"}
        time.sleep(1)
        assert "on 1001 answers" in command(file, "feedback")
        told = command(file, "policy", "--promote")
        assert "a canary began: linucb answers 50% of the visitors, thompson the others" in told
        canary = database.policy_heads()[1][ALL].canary
        assert canary is not None
        time.sleep(1)
        answered: dict[str, str] = {}
        end = time.monotonic() + 120
        while not database.decisions() and time.monotonic() < end:
            name = f"v{len(answered)}"
            answered[name] = visit(http, name, liked if better else others)
        (decision,) = database.decisions()
        early = {name: answered[name] for name in list(answered)[:100]}  # before anything could be decided
        assert early == {name: "linucb" if in_canary(canary, name) else "thompson" for name in early}
        stays = "linucb" if better else "thompson"
        assert decision.outcome == ("promoted" if better else "rolled back")
        assert abs(decision.evidence["look"]["difference"]) > 0.1
        wait_for(lambda: {visit(http, f"new{n}", set()) for n in range(10)} == {stays}, 5)
    command(file, "policy")
    html = report.read_text()
    assert decision.outcome in html
