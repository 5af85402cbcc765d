"""Leave-last-out ranks and baselines against loops."""

import math

import numpy as np
import pytest

from fuserank.errors import EvaluationError
from fuserank.evaluation.recommend import ItemNeighbours, hold_out, popularity, rank_values, target_rank


def test_neighbours_equal_a_loop():
    random = np.random.default_rng(0)
    histories = [random.integers(0, 15, size=random.integers(1, 9)).tolist() for _ in range(40)]
    histories.append([])
    model, sets = ItemNeighbours(histories, 15, window=3), [set(history) for history in histories]
    count = [sum(i in s for s in sets) for i in range(15)]
    for history in ([3, 4, 5, 6], [7], [2, 2, 1], []):
        latest = list(dict.fromkeys(history[::-1]))[:3]
        for j in range(15):
            want = sum(
                sum(i in s and j in s for s in sets) / math.sqrt(count[i] * count[j])
                for i in latest
                if i != j and count[i] and count[j]
            )
            assert model.scores(history)[j] == pytest.approx(want)
    assert popularity(histories, 15).tolist() == count


def test_target_rank_equals_sorting_with_ties_and_seen():
    random = np.random.default_rng(1)
    for _ in range(200):
        scores = random.integers(0, 4, size=12).astype(float)
        target = int(random.integers(12))
        seen = [int(i) for i in random.permutation(12)[:4] if i != target]
        order = sorted((i for i in range(12) if i not in seen), key=lambda i: (-scores[i], i))
        assert target_rank(scores, target, seen) == order.index(target) + 1


def test_target_rank_refuses():
    with pytest.raises(EvaluationError, match="NaN"):
        target_rank(np.array([0.0, np.nan]), 0)
    with pytest.raises(EvaluationError, match="held out and yet"):
        target_rank(np.zeros(3), 1, [1])


def test_rank_values():
    found = rank_values(np.array([1, 3, 10, 11]), 10)
    assert found["hr@10"].tolist() == [1, 1, 1, 0]
    assert found["ndcg@10"].tolist() == pytest.approx([1, 0.5, 1 / math.log2(11), 0])


@pytest.mark.parametrize(
    ("rows", "cut"),
    [
        ([1, 2, 3], 2),  # plain: the last one
        ([1, 2, 3, 3], 2),  # clicked, then bought: both were kept back from training
        ([1, 3, 2, 3], None),  # its first event was trained on
        ([3], None),  # nothing before it
        ([3, 3], None),
        ([], None),
    ],
)
def test_hold_out(rows, cut):
    assert hold_out(rows) == cut
