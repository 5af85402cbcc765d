"""Parts and their sum against NumPy written out; weights are found where one part knows the answer."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fuserank.errors import ModelError
from fuserank.feedback import recommendations
from fuserank.feedback.blend import fit_blend
from fuserank.feedback.neighbours import Neighbours
from fuserank.feedback.questions import Question
from fuserank.feedback.recommendations import LEAST, Blend, Recommendations
from fuserank.feedback.sequences import pad_history
from fuserank.models.recommender import Recommender

KNOWN, ROWS, EVENTS = 15, 17, 5


def past(*rows: int) -> dict[str, np.ndarray]:
    return {"rows": np.array(rows), "types": np.full(len(rows), 2), "times": 10.0 * np.arange(len(rows))}


def histories() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.permutation(KNOWN)[:6] for _ in range(20)]


@pytest.fixture
def vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS, 8)).astype(np.float32)


@pytest.fixture
def recommender() -> Recommender:
    torch.manual_seed(0)
    return Recommender(8, 16, EVENTS, layers=1, heads=2, dropout=0.1, products=KNOWN).eval()


@pytest.fixture
def found(recommender: Recommender, vectors: np.ndarray) -> Recommendations:
    turned = np.bincount(np.concatenate(histories()), minlength=KNOWN)
    return Recommendations(recommender, Neighbours.count(histories(), KNOWN), turned, Blend(0.7, 0.2, 1.5), vectors)


def test_scores_are_the_weighted_sum(
    found: Recommendations, recommender: Recommender, vectors: np.ndarray, tmp_path: Path
) -> None:
    users = [past(3, 5, 3), past(16), past(*range(8))]
    scores = found.scores(users)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    table = recommender.table(torch.from_numpy(vectors)).detach()
    turned = np.bincount(np.concatenate(histories()), minlength=KNOWN)
    for score, user in zip(scores, users, strict=True):
        arrays = pad_history([user], EVENTS)
        sides = [torch.from_numpy(arrays[name]) for name in ("types", "gaps", "mask")]
        with torch.no_grad():
            told = recommender.user_vectors(table[torch.from_numpy(arrays["rows"])], *sides) @ table.T
        told = told[0].numpy() - np.log(np.exp(told[0].numpy()).sum())
        near = Neighbours.count(histories(), KNOWN).scores(user["rows"], ROWS)
        near = np.log(near / max(near.sum(), 1e-9) + LEAST)
        popular = np.append(np.log1p(turned), [np.log1p(turned).mean()] * 2)
        mean = sum(unit[row] / (place + 1) for place, row in enumerate(reversed(user["rows"])))
        likeness = unit @ (mean / np.linalg.norm(mean))
        np.testing.assert_allclose(score, told + 0.7 * near + 0.2 * popular + 1.5 * likeness, atol=2e-5)
    recommendations.save(tmp_path, Neighbours.count(histories(), KNOWN), turned, found.blend)
    np.testing.assert_array_equal(recommendations.load(tmp_path, recommender, vectors).scores(users), scores)
    (tmp_path / recommendations.FILE).write_bytes(b"broken")
    with pytest.raises(ModelError, match="fuserank index"):
        recommendations.load(tmp_path, recommender, vectors)


def test_a_changed_product_is_scored_as_it_is_now(
    found: Recommendations, recommender: Recommender, vectors: np.ndarray
) -> None:
    users, changed = [past(3, 4)], np.concatenate([vectors, np.ones((2, 8), np.float32)])
    changed[[4, 9]] = changed[[9, 4]]
    found.put(np.array([4, 9, 17, 18]), changed[[4, 9, 17, 18]])
    turned = np.bincount(np.concatenate(histories()), minlength=KNOWN)
    anew = Recommendations(recommender, Neighbours.count(histories(), KNOWN), turned, found.blend, changed)
    np.testing.assert_allclose(found.scores(users), anew.scores(users), atol=1e-6)


def test_weights_go_to_the_part_that_knows(recommender: Recommender, vectors: np.ndarray) -> None:
    """Everybody goes on to the neighbour of their last product: that of the pair 0-1, 2-3, …"""
    pairs = [np.array([row, row + 1]) for row in range(0, 14, 2) for _ in range(3)]
    turned = np.bincount(np.concatenate(pairs), minlength=KNOWN)
    asked: list[Question] = [(past((row + 5) % 14, row), row + 1) for row in range(0, 14, 2)] * 8
    found = Recommendations(recommender, Neighbours.count(pairs, KNOWN), turned, Blend(), vectors)
    blend, figures = fit_blend(found, asked, 0)
    assert found.blend == blend
    assert blend.neighbours >= 0.5
    assert figures["recommender_ndcg@10"] < 0.7 < 0.9 < figures["blend_ndcg@10"]
    same, nothing = fit_blend(found, asked[:20], 0)
    assert same == blend
    assert nothing == {}
