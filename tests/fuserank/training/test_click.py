"""A click model finds what made simulated users click: the products' appeal and the places they look at, apart."""

import numpy as np
import pytest
import torch

from fuserank.errors import ModelError, PolicyError
from fuserank.evaluation.probabilities import calibration_error
from fuserank.losses.shown import shown_loss
from fuserank.models.chances import Chances
from fuserank.models.click import ClickModel, load_click, log_odds, save_click
from fuserank.training.click import Shown, fit_click

LOOKED_AT = np.array([1.0, 0.6, 0.35, 0.2])
APPEAL, WORTH = np.array([1.2, -0.8, 0.0]), np.array([0.0, 1.0, 0.5])


def simulated(answers: int, seed: int = 0, explored: float = 0.3) -> tuple[Shown, np.ndarray]:
    """Answers of four places, the most appealing first unless explored; and the true chances [N, 2]."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(answers, 4, 3))
    features[..., 2] = 1.0
    best = np.argsort(-(features @ APPEAL), axis=1)
    order = np.where(random.random((answers, 1)) < explored, np.arange(4), best)
    features = np.take_along_axis(features, order[..., None], 1).reshape(-1, 3)
    places = np.tile(np.arange(4), answers)
    click = LOOKED_AT[places] / (1 + np.exp(1.0 - features @ APPEAL))
    bought = 1 / (1 + np.exp(1.0 - features @ WORTH))
    clicked = random.random(len(places)) < click
    happened = np.stack([clicked, clicked & (random.random(len(places)) < bought)], 1).astype(float)
    return Shown(features, places, happened, np.repeat(np.arange(answers), 4)), np.stack([click, click * bought], 1)


@pytest.fixture(scope="module")
def fitted():
    shown, true = simulated(20_000)
    return *fit_click(shown, bootstrap=200), shown, true


def test_finds_how_often_each_place_is_looked_at(fitted) -> None:
    model, _, shown, _ = fitted
    np.testing.assert_allclose(model.looked_at().detach(), LOOKED_AT, atol=0.05)
    rates = [shown.happened[shown.places == place, 0].mean() for place in range(4)]
    assert abs(rates[3] / rates[0] - LOOKED_AT[3]) > 0.08  # plain rates take places for products


def test_its_probabilities_are_the_true_ones(fitted) -> None:
    model, figures, shown, true = fitted
    with torch.no_grad():
        told = model(torch.from_numpy(shown.features).float(), torch.from_numpy(shown.places)).numpy()
    assert np.abs(told - true).mean(0).max() < 0.015
    for head in ("click", "purchase"):
        assert figures[head]["calibration_error"] < 0.015
        assert figures[head]["saved"]["low"] > 0  # against the rate of each place
        assert figures[head]["auc"] > 0.65
    judged = slice(4 * 17_000, None)
    kept = -(
        shown.happened[judged, 0] * np.log(told[judged, 0])
        + (1 - shown.happened[judged, 0]) * np.log(1 - told[judged, 0])
    )
    assert figures["click"]["log_loss"] == pytest.approx(kept.mean(), rel=1e-4)
    assert figures["click"]["happened"] == shown.happened[judged, 0].sum()


def test_calibration_mends_what_is_too_sure() -> None:
    shown, _ = simulated(4000, seed=1)
    model, figures = fit_click(shown, bootstrap=100)
    model.slope.mul_(3)
    with torch.no_grad():
        sure = model(torch.from_numpy(shown.features).float(), torch.from_numpy(shown.places)).numpy()[4 * 3400 :, 0]
    assert calibration_error(sure, shown.happened[4 * 3400 :, 0]) > 3 * figures["click"]["calibration_error"]


def test_a_purchase_is_never_likelier_than_its_click(fitted) -> None:
    model, _, shown, _ = fitted
    chances = model.log_chances(torch.from_numpy(shown.features).float(), torch.from_numpy(shown.places))
    assert bool((chances[:, 1] <= chances[:, 0]).all())


def test_loss_and_odds_are_those_of_numpy() -> None:
    random = np.random.default_rng(0)
    chance, happened = random.uniform(0.01, 0.99, (50, 2)), (random.random((50, 2)) < 0.5).astype(float)
    expected = -(happened * np.log(chance) + (1 - happened) * np.log(1 - chance)).mean(0)
    logs = torch.from_numpy(np.log(chance))
    np.testing.assert_allclose(shown_loss(logs, torch.from_numpy(happened)), expected, rtol=1e-6)
    np.testing.assert_allclose(log_odds(logs), np.log(chance / (1 - chance)), rtol=1e-6)


def test_saved_and_loaded_it_says_the_same(fitted, tmp_path) -> None:
    model, _, shown, _ = fitted
    save_click(model, ("one", "two", "three"), tmp_path)
    loaded, names = load_click(tmp_path)
    rows, places = torch.from_numpy(shown.features[:50]).float(), torch.from_numpy(shown.places[:50])
    assert names == ("one", "two", "three")
    assert torch.equal(loaded(rows, places), model(rows, places))
    (tmp_path / "click.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot be read"):
        load_click(tmp_path)


def test_numpy_tells_the_same_chances(tmp_path) -> None:
    """Random weights, features in another order and with one more than the model reads."""
    random = torch.Generator().manual_seed(3)
    model = ClickModel(3, 4).eval()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=random) * 2 - 0.5 if value.ndim else value)
        model.spread.abs_().add_(0.1)
    save_click(model, ("one", "two", "three"), tmp_path)
    features, places = torch.randn(200, 3, generator=random) * 3, torch.arange(200) % 6
    given = np.insert(features.numpy()[:, [2, 0, 1]], 1, 7.0, axis=1)
    told = Chances(tmp_path / "click.safetensors")(("three", "more", "one", "two"), given, places.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(told, model(features, places).numpy(), rtol=1e-4, atol=1e-6)
    (tmp_path / "click.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="Run `fuserank feedback` again"):
        Chances(tmp_path / "click.safetensors")


def test_few_clicks_fit_nothing() -> None:
    shown, _ = simulated(60)
    with pytest.raises(PolicyError, match="too few for a click model"):
        fit_click(shown)
    assert ClickModel(3, 1).looked_at().tolist() == [1.0]
