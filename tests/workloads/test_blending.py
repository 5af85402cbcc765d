"""The weights of a recommendation's parts: found where the log tells of them, left out where it does not."""

import numpy as np
import pytest
import torch

from fuserank.retrieval.blend import PARTS, Blend, Offer, Wish
from workloads.blending import Asked, _climb, _fit, _ndcg, _pad


def asked(weights: list[float], users: int = 400, candidates: int = 30, seed: int = 0) -> Asked:
    """Users who choose by softmax of these weights, exactly as the model says."""
    random = np.random.default_rng(seed)
    parts = random.normal(size=(users, candidates, len(PARTS))).astype(np.float32)
    score = parts @ np.array(weights) + random.gumbel(size=(users, candidates))
    target = torch.from_numpy(score.argmax(1))
    return Asked(torch.from_numpy(parts), torch.ones(users, candidates, dtype=torch.bool), target, np.ones(users, bool))


def test_weights_are_those_that_users_choose_by() -> None:
    true = [1.0, 0.5, 0.0, 2.0, 0.0, 0.7, 0.3]
    found = _fit(asked(true, users=3000), np.arange(3000))
    np.testing.assert_allclose(found.numpy(), true, atol=0.12)
    assert (found >= 0).all()


def test_what_repels_users_is_left_out_not_turned_round() -> None:
    assert _fit(asked([1.0, -1.0, 0, 0, 0, 0, 0]), np.arange(400)).numpy()[1] == 0


def test_ndcg_against_the_definition() -> None:
    questions = asked([1.0] * 7, users=50)
    questions.found[:5] = False
    weights = torch.tensor([0.3, 1.0, 0.1, 0.0, 2.0, 0.4, 0.6])
    expected = []
    for user in range(50):
        scores = questions.parts[user].numpy() @ weights.numpy()
        rank = 1 + sum(other > scores[questions.target[user]] for other in scores)
        expected.append(1 / np.log2(rank + 1) if rank <= 10 and user >= 5 else 0.0)
    np.testing.assert_allclose(_ndcg(questions, weights), expected, atol=1e-6)
    assert _ndcg(questions, torch.zeros(7)).sum() == 0, "equal scores are no success"


def test_a_target_that_no_search_finds_is_not_fitted_on_and_counts_as_missed() -> None:
    class Parts:
        def parts(self, rows: np.ndarray, recent: list[int], user: None) -> np.ndarray:
            return np.full((len(rows), len(PARTS)), 9.0, np.float32)

    offers = [Offer(np.array([3, 5, 8]), np.eye(3, len(PARTS), dtype=np.float32)) for _ in range(2)]
    found, spread = _pad(Parts(), [Wish([1], None)] * 2, offers, [5, 7])  # type: ignore[arg-type]
    assert found.found.tolist() == [True, False]
    assert found.target.tolist() == [1, 3]
    assert found.mask.tolist() == [[True, True, True, False], [True, True, True, True]]
    np.testing.assert_allclose((found.parts * spread)[1, 3], 9.0, rtol=1e-6)
    both = asked([1.0, 0.5, 0.0, 2.0, 0.0, 0.7, 0.3])
    both.found[:100] = False
    moved = Asked(both.parts, both.mask, torch.where(torch.arange(400) < 100, 0, both.target), both.found)
    assert torch.equal(_fit(both, np.arange(400)), _fit(moved, np.arange(400)))


def test_where_no_search_finds_anything_all_parts_count_alike() -> None:
    questions = asked([1.0] * 7, users=20)
    questions.found[:] = False
    assert _climb(questions, np.arange(20)).tolist() == [0.5] * 7  # an empty likelihood is NaN


def test_climbing_never_ranks_worse_than_it_began() -> None:
    questions = asked([1.0, 0.5, 0.0, 2.0, 0.0, 0.7, 0.3])
    questions.parts[..., 0] = questions.parts[..., 0] ** 3  # not what the model says
    everyone = np.arange(400)
    before, after = _fit(questions, everyone), _climb(questions, everyone)
    assert _ndcg(questions, after).mean() > _ndcg(questions, before).mean()
    assert (after >= 0).all()


def test_a_blend_is_what_the_manifest_says() -> None:
    blend = Blend.of({"blend": {"content": 0.5, "unheard-of": 3.0}})
    assert blend.vector(True).tolist() == pytest.approx([0, 0.5, 0, 0, 0, 0, 0])
    assert Blend.of({}).vector(True).tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert Blend.of({}).vector(False).tolist() == [0, 1, 0, 0, 0, 0, 0]
