"""The recommender's own part: it learns what follows what, alike after an interruption, and ranks as a loop does."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank import config
from fuserank.feedback.questions import Question
from fuserank.feedback.sequences import pad_history
from fuserank.models.recommender import Recommender
from fuserank.training.sequential import fit_recommender, validate

PRODUCTS, EVENTS, CPU = 20, 6, torch.device("cpu")


def walk(start: int, count: int) -> dict[str, np.ndarray]:
    """Everybody goes from a product to the third after it."""
    rows = (start + 3 * np.arange(count)) % PRODUCTS
    return {"rows": rows, "types": np.full(count, 2), "times": 60.0 * np.arange(count)}


def shop() -> tuple[torch.Tensor, dict[str, np.ndarray], list[Question]]:
    vectors = torch.nn.functional.normalize(torch.randn(PRODUCTS, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    histories = pad_history([walk(n % PRODUCTS, 3 + n % 4) for n in range(60)], EVENTS + 1)
    return vectors, histories, [(walk(n, 4), (n + 12) % PRODUCTS) for n in range(PRODUCTS)]


def fresh() -> Recommender:
    torch.manual_seed(3)
    return Recommender(8, 16, EVENTS, layers=1, heads=2, dropout=0.1, products=PRODUCTS)


def options(**changes: object) -> config.Recommend:
    values = {"epochs": 20, "batch_size": 16, "learning_rate": 1e-2, **changes}
    return config.Recommend.model_validate(values)


@pytest.mark.parametrize("negatives", [0, 6])
def test_it_learns_what_follows(negatives: int) -> None:
    vectors, histories, asked = shop()
    recommender = fresh()
    before = validate(recommender, vectors, asked, CPU, 1)["hr@1"]
    seen = []
    chosen = options(negatives=negatives)
    found = fit_recommender(recommender, vectors, histories, asked, chosen, 0, CPU, lambda *told: seen.append(told[:2]))
    assert before < 0.3
    assert validate(recommender, vectors, asked, CPU, 1)["hr@1"] > 0.9
    assert found["ndcg@10"] > 0.95
    assert seen == [(epoch, 20) for epoch in range(2, 21, 2)]


def test_content_stands_alone() -> None:
    """Without ids at all, ranks by content are far above chance because training dropped ids now and then."""
    vectors, histories, asked = shop()
    recommender = fresh()
    fit_recommender(recommender, vectors, histories, asked, options(id_dropout=0.5), 0, CPU, lambda *_: None)
    assert recommender.ids is not None
    torch.nn.init.zeros_(recommender.ids.weight)
    assert validate(recommender, vectors, asked, CPU, 3)["hr@3"] > 0.6  # chance: 3 of 16


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    vectors, histories, asked = shop()
    whole, killed = fresh(), fresh()
    fit_recommender(whole, vectors, histories, asked, options(), 0, CPU, lambda *_: None, keep="last")

    def stop(epoch: int, *_: object) -> None:
        if epoch == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_recommender(killed, vectors, histories, asked, options(), 0, CPU, stop, tmp_path / "state", "last")
    torch.manual_seed(99)  # whatever happened since
    again = fresh()
    fit_recommender(again, vectors, histories, asked, options(), 0, CPU, lambda *_: None, tmp_path / "state", "last")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_ranks_are_those_of_a_loop() -> None:
    vectors, _, asked = shop()
    recommender = fresh().eval()
    table = recommender.table(vectors).detach()
    hits = []
    for past, target in asked:
        arrays = pad_history([past], EVENTS)
        sides = (torch.from_numpy(arrays[name]) for name in ("types", "gaps", "mask"))
        with torch.no_grad():
            scores = (recommender.user_vectors(table[torch.from_numpy(arrays["rows"])], *sides) @ table.T)[0]
        others = [float(scores[row]) for row in range(PRODUCTS) if row != target and row not in past["rows"]]
        hits.append(sum(score >= float(scores[target]) for score in others) < 5)
    assert validate(recommender, vectors, asked, CPU, 5)["hr@5"] == pytest.approx(np.mean(hits))
