"""`explain: true` where a policy answers: how likely each hit is clicked and bought, by the click model of the run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank.artifacts import stage_path
from fuserank.config import Experiment
from fuserank.models.click import ClickModel, save_click
from tests.serve.test_policies import impressions, read, served, settings


def click_model(experiment: Experiment, kind: str, names: list[str], seed: int = 0) -> ClickModel:
    """One of random weights, written where the service looks."""
    torch.manual_seed(seed)
    model = ClickModel(len(names), 3).eval()
    torch.nn.init.normal_(model.linear.weight)
    folder = stage_path(experiment, "feedback") / "click" / kind
    folder.mkdir(parents=True, exist_ok=True)
    save_click(model, tuple(names), folder)
    return model


@pytest.mark.parametrize(
    ("kind", "asked"), [("recommend", {"product_ids": ["p02"]}), ("search", {"text": "red shoes"})]
)
def test_chances_are_those_of_the_click_model(experiment: Experiment, tmp_path: Path, kind: str, asked: dict) -> None:
    experiment = settings(experiment, tmp_path)
    body = {**asked, "limit": 5, "explain": True}
    with served(experiment, learning=False) as client:
        without = client.post(f"/v1/{kind}", json=body).json()
        assert all(hit.get("chances") is None for hit in without["hits"]), "there is no model"
        names, _, _ = read(impressions(experiment, 1)[without["request_id"]])
        try:
            model = click_model(experiment, kind, names[1:])
            answer = client.post(f"/v1/{kind}", json=body).json()
            quiet = client.post(f"/v1/{kind}", json={**body, "explain": False}).json()
            other = click_model(experiment, kind, [*names[1:], "not logged"])
            unknown = client.post(f"/v1/{kind}", json=body).json()
        finally:
            shutil.rmtree(stage_path(experiment, "feedback") / "click")
    assert other.linear.in_features == len(names)
    for silent in (quiet, unknown):  # not asked for, and a model that reads what nobody knows
        assert all(hit.get("chances") is None for hit in silent["hits"])
    row = impressions(experiment, 4)[answer["request_id"]]
    _, values, places = read(row)
    with torch.inference_mode():
        expected = model(torch.from_numpy(values[places][:, 1:]).float(), torch.arange(len(places))).numpy()
    told = np.array([[hit["chances"]["click"], hit["chances"]["purchase"]] for hit in answer["hits"]])
    np.testing.assert_allclose(told, expected, rtol=1e-4)
    assert (told[:, 1] < told[:, 0]).all()
    assert told.std() > 0.01
